"""The baseline: a plain loop as people write it, and what each optimisation adds to it.

Per image, per step, per chosen expert one call with both guidance rows; text projection, keys,
values and time embeddings anew in every call, the router and the decoder per image, nothing kept.
It is fair otherwise: the same networks with scaled_dot_product_attention, the same dtype, prompts
encoded once, no gradients. Each field of `Way` is one optimisation of ours added to that. Called by
the benchmark's comparison and by tests, which hold its pictures to the pipeline's. What dies with
it: its own copy of the weights.

Symbols: N images, C latent channels, S latent size, L text tokens, D text width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baguette.device import Numbers
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.loading import load_expert
from baguette.families.paris.requester import Requester
from baguette.generation import Generation
from baguette.mixture import Choice, choose
from baguette.replay import Routing
from baguette.request import GenerationRequest
from baguette.sampler import euler_step
from baguette.together import DECODED


@dataclass(frozen=True)
class Way:
    """Which optimisations are on.

    `contexts` keeps keys and values per (expert, prompt), `times` the modulation per (expert, t);
    `images` asks an expert for all its images of a step at once; `requester` routes and decodes all
    images at once.
    """

    contexts: bool = False
    times: bool = False
    images: bool = False
    requester: bool = False


PLAIN = Way()
LADDER = (
    ("plain", PLAIN),
    ("+ keys and values kept", Way(contexts=True)),
    ("+ time embeddings kept", Way(contexts=True, times=True)),
    ("+ images batched per expert", Way(contexts=True, times=True, images=True)),
    ("+ router and decoder batched", Way(True, True, True, True)),
)


@dataclass
class _Kept:
    """What one picture keeps, by expert; nothing outlives it."""

    contexts: dict[int, Any] = field(default_factory=dict)
    times: dict[tuple[int, float], Any] = field(default_factory=dict)


class Plain:
    """The networks of a model directory, all in one dtype; `draw` is the loop."""

    def __init__(self, model_dir: Path, device: torch.device, dtype: torch.dtype) -> None:
        numbers = Numbers(device, dtype, dtype)
        config = ModelConfig.read(model_dir)
        self.requester = Requester(model_dir, numbers)
        experts = [load_expert(model_dir, i, numbers) for i in range(config.num_experts)]
        self.experts = [expert.module for expert in experts]
        if any(expert.objective != "velocity" for expert in experts):
            raise ValueError("the plain loop knows experts that predict velocities only")
        self.device, self.dtype = device, dtype

    @torch.inference_mode()
    def draw(
        self, request: GenerationRequest, way: Way = PLAIN, imposed: Routing | None = None
    ) -> Generation:
        """Every image of the request: pixels uint8 (H, W, 3), latents (C, S, S) fp32, routing."""
        done = Generation(request)
        done.routing = [[] for _ in range(request.n)]
        done.reused = [[False] * request.steps for _ in range(request.n)]
        null = self.requester.encode_null(request.negative_prompt)
        context = self.requester.encode(request.prompt)
        text = torch.stack([null.tensor, context.tensor])  # (2, L, D)
        text = text.to(self.device, self.dtype)
        kept = _Kept()
        for images in _groups(range(request.n), way.images):
            done.latents += self._sample(done, images, text, way, kept, imposed)
        for part in torch.stack(done.latents).split(DECODED if way.requester else 1):
            done.pixels += self.requester.decoder.decode(part)
        return done

    def _sample(
        self, done: Generation, images: Sequence[int], text: Tensor, way: Way, kept: _Kept,
        imposed: Routing | None,
    ) -> list[Tensor]:  # fmt: skip
        """The latents of these images, walked from noise to picture together."""
        request = done.request
        latents = torch.stack([self.requester.start(request.seed + i) for i in images])
        latents = latents.to(self.device)
        for step, (t, t_next) in enumerate(itertools.pairwise(self.requester.times(request.steps))):
            chosen = (
                self._route(latents, t, request.top_k, way)
                if imposed is None
                else [imposed[i][step] for i in images]
            )
            for i, choice in zip(images, chosen, strict=True):
                done.routing[i].append(choice)
            velocity = torch.zeros_like(latents)
            for number in sorted({e for choice in chosen for e in choice.experts}):
                asking = [i for i, choice in enumerate(chosen) if number in choice.experts]
                answer = self._ask(number, latents[asking], t, text, way, kept)
                null, conditional = answer.float().chunk(2)
                guided = null + request.guidance_scale * (conditional - null)
                velocity[asking] += _shares(chosen, asking, number).to(guided) * guided
            latents = euler_step(latents, velocity, t, t_next)
        return list(latents.cpu())

    def _route(self, latents: Tensor, t: float, top_k: int | None, way: Way) -> list[Choice]:
        router = self.requester.router.module
        chosen: list[Choice] = []
        for part in latents.split(len(latents) if way.requester else 1):
            times = self._times(t, len(part))
            chosen += [choose(row, top_k) for row in router(part.to(self.dtype), times).cpu()]
        return chosen

    def _ask(
        self, number: int, latents: Tensor, t: float, text: Tensor, way: Way, kept: _Kept
    ) -> Tensor:
        """Both guidance rows of these latents (N, C, S, S), as one call: (2N, C, S, S)."""
        expert = self.experts[number]
        both = torch.cat([latents, latents]).to(self.dtype)
        if not way.contexts:
            return expert(both, self._times(t, len(both)), text)
        if number not in kept.contexts:
            kept.contexts[number] = expert.keys_values(text)
        if not way.times:
            modulation = expert.modulation(self._times(t, len(both)))
            return expert.predict(both, modulation, kept.contexts[number])
        if (number, t) not in kept.times:
            kept.times[number, t] = expert.modulation(self._times(t, 1))
        return expert.predict(both, kept.times[number, t], kept.contexts[number])

    def _times(self, t: float, rows: int) -> Tensor:
        return torch.full((rows,), self.requester.network_time(t), device=self.device)


def _groups(images: Sequence[int], together: bool) -> list[Sequence[int]]:
    return [images] if together else [[i] for i in images]


def _shares(chosen: Sequence[Choice], asking: Sequence[int], number: int) -> Tensor:
    """What this expert counts for in each asking image, (N, 1, 1, 1)."""
    shares = [chosen[i].weights[chosen[i].experts.index(number)] for i in asking]
    return torch.tensor(shares)[:, None, None, None]
