"""What the requesting node computes itself: encode, start, route, advance, decode.

The single-process pipeline and the pipeline worker are both built on this one class, so that the
cluster and the reference agree to the byte. Imports transformers and diffusers. Canonical
throughout: one prompt, one image, one context at a time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from baguette.device import Numbers, reference
from baguette.errors import NotFinite
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.expert import Context, Row
from baguette.families.paris.files import (
    component_key,
    part_files,
    refuse_damaged,
    requester_faults,
    router_key,
)
from baguette.families.paris.loading import load_router
from baguette.families.paris.preview import LatentPreview
from baguette.families.paris.text import TextEncoder, unknown_words
from baguette.families.paris.vae import LatentDecoder
from baguette.finite import all_finite
from baguette.mixture import Choice, choose, mix
from baguette.noise import initial_noise
from baguette.request import GenerationRequest
from baguette.reuse import relative_changes
from baguette.sampler import euler_step
from baguette.schedule import network_time, time_grid

# Contexts of the last prompts: of Paris 236 KB each.
KEPT_PROMPTS = 64


class Requester:
    """Text encoder, router, sampler and VAE of one Paris model directory."""

    def __init__(self, model_dir: Path, numbers: Numbers | None = None) -> None:
        numbers = numbers or reference()
        self.config = ModelConfig.read(model_dir)
        self.device = numbers.device
        refuse_damaged(model_dir, requester_faults(model_dir))
        self.router = load_router(model_dir, numbers)
        self.text = TextEncoder(model_dir, numbers)
        self.decoder = LatentDecoder(model_dir, numbers)
        self.look = LatentPreview(self.decoder.vae)
        self._contexts: OrderedDict[str, Context] = OrderedDict()
        self.keys = {
            "router": router_key(model_dir, self.config.settings),
            "text_encoder": component_key(
                "text_encoder", *part_files(model_dir, "text_encoder", "tokenizer")
            ),
            "vae": component_key("vae", *part_files(model_dir, "vae")),
        }

    def encode(self, prompt: str) -> Context:
        """The context of one prompt; its hash covers the encoder's key and the tensor's bytes.

        Encoded alone and kept: its bytes are its name, so they must not depend on company.
        """
        if prompt not in self._contexts:
            self._contexts[prompt] = self._context(self.text.encode(prompt))
            if len(self._contexts) > KEPT_PROMPTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(prompt)
        return self._contexts[prompt]

    def encode_null(self, negative_prompt: str = "") -> Context:
        """What guidance pushes away from: the encoding of "" or a negative prompt, or zeros."""
        context = self.encode(negative_prompt)
        if not negative_prompt and self.config.settings.null_context == "zeros":
            return self._context(torch.zeros_like(context.tensor))
        return context

    def _context(self, tensor: Tensor) -> Context:
        digest = hashlib.sha256(self.keys["text_encoder"].encode())
        digest.update(tensor.contiguous().numpy().tobytes())
        return Context(digest.hexdigest(), tensor)

    def warnings(self, prompt: str) -> list[str]:
        """A sentence when the prompt holds words that this model was never shown."""
        unknown = unknown_words(prompt, self.config.vocabulary)
        if not unknown:
            return []
        shown = ", ".join(word[:20] for word in unknown[:3])
        hint = self.config.vocabulary_hint or f"{self.config.name} knows a small vocabulary"
        return [f"{hint} (unknown here: {shown}); for real pictures: make weights"]

    def prompts(self, request: GenerationRequest) -> tuple[Context, Context]:
        """The contexts of a request: what it asks for, and what guidance pushes away from."""
        return self.encode(request.prompt), self.encode_null(request.negative_prompt)

    def row(
        self, latent: Tensor, t: float, prompts: tuple[Context, Context], guidance_scale: float
    ) -> Row:
        """What an expert is asked about one image (C, S, S) at time t; `prompts` as above."""
        context, null = prompts
        return Row(latent, t, self.network_time(t), context.hash, null.hash, guidance_scale)

    def times(self, steps: int) -> list[float]:
        """The steps + 1 times of a picture, from 1 to 0."""
        return time_grid(steps, self.config.settings.grid)

    def network_time(self, t: float) -> float:
        """Time t in [0, 1] as the networks take it."""
        return network_time(t, self.config.settings.time_scale)

    def start(self, seed: int) -> Tensor:
        """The first latent of the image with this seed, (C, S, S) fp32."""
        return initial_noise(seed, self.config.latent_shape)

    def route(self, latent: Tensor, t: float, top_k: int | None) -> Choice:
        """Which experts this image asks at time t; `top_k` None asks them all."""
        return self.routing(latent[None], t, top_k)()[0]

    def routing(self, latents: Tensor, t: float, top_k: int | None) -> Callable[[], list[Choice]]:
        """The same of latents (N, C, S, S) as one batch: a call to be made on any thread."""
        logits_of = self.router.call(latents, (self.network_time(t),))
        return lambda: _chosen(logits_of(), [top_k] * len(latents))

    def route_each(
        self, latents: Tensor, times: Sequence[float], top_k: Sequence[int | None]
    ) -> list[Choice]:
        """The same of latents (N, C, S, S) as one batch, each with its own time and `top_k`."""
        logits = self.router.call(latents, tuple(map(self.network_time, times)))()
        return _chosen(logits, top_k)

    def moved(self, before: Tensor, after: Tensor, t: float, t_next: float) -> list[float]:
        """How far each latent of (N, C, S, S) and the time went in a step, as `reuse` adds up."""
        time = self.router.time_change(self.network_time(t), self.network_time(t_next))
        return [change + time for change in relative_changes(before, after)]

    def advance(
        self,
        latent: Tensor,
        velocities: Mapping[int, Tensor],
        choice: Choice,
        t: float,
        t_next: float,
    ) -> Tensor:
        """One Euler step with the experts' velocities mixed in expert order."""
        latent = euler_step(latent, mix(velocities, choice), t, t_next)
        if not all_finite(latent):
            raise NotFinite(
                f"the latent after t={t:.4f} is not finite; an expert's answer is damaged"
            )
        return latent

    def preview(
        self, latent: Tensor, velocities: Mapping[int, Tensor], choice: Choice, t: float
    ) -> Tensor:
        """Roughly what the picture will be if the velocity stays: x0 = x_t - t v, small pixels."""
        return self.look(euler_step(latent, mix(velocities, choice), t, 0.0))

    def decode(self, latent: Tensor) -> Tensor:
        """latent (C, S, S) -> pixels uint8 (H, W, 3)."""
        return self.decode_together(latent[None])[0]

    def decode_together(self, latents: Tensor) -> list[Tensor]:
        """The same of latents (N, C, S, S), as one batch."""
        return self.decoder.decode(latents)


def _chosen(logits: Tensor, top_k: Sequence[int | None]) -> list[Choice]:
    """Router logits (N, K) -> each image's experts."""
    if not all_finite(logits):
        raise NotFinite("the router's logits are not finite; is the latent damaged?")
    return [choose(row, k) for row, k in zip(logits.cpu(), top_k, strict=True)]
