"""The way of a request in one process: encode, route, ask, advance, decode.

This is the reference for everything else: a cluster must give the same latents and pixels to the
byte (docs/internals/numerics.md). Called by `python -m baguette`, the bench and the tests.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from baguette.device import pin_threads
from baguette.errors import NotFinite, WeightsError
from baguette.families.paris.expert import PreparedExpert, Row
from baguette.families.paris.files import survey
from baguette.families.paris.loading import load_expert
from baguette.families.paris.requester import Context, Requester
from baguette.image import tensor_sha256
from baguette.mixture import Choice
from baguette.replay import Routing, recorded
from baguette.request import GenerationRequest
from baguette.runtime import Runtime

Progress = Callable[[int, int, list[tuple[int, ...]]], None]


@dataclass
class Generation:
    """What came out: per image its pixels uint8 (H, W, 3), latent (C, S, S) fp32 and routing."""

    request: GenerationRequest
    pixels: list[Tensor] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    routing: list[list[Choice]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The record other programs can hold this picture to; no prompt in it."""
        return {
            "seed": self.request.seed,
            "steps": self.request.steps,
            "guidance_scale": self.request.guidance_scale,
            "top_k": self.request.top_k or "full",
            "threads": torch.get_num_threads(),
            "images": [
                {
                    "seed": self.request.seed + i,
                    "pixels_sha256": tensor_sha256(pixels),
                    "latent_sha256": tensor_sha256(latent),
                }
                for i, (pixels, latent) in enumerate(zip(self.pixels, self.latents, strict=True))
            ],
            "routing": [
                [{"experts": c.experts, "weights": c.weights, "margin": c.margin} for c in image]
                for image in self.routing
            ],
            "seconds": self.seconds,
            "warnings": self.warnings,
        }


class Pipeline:
    """All components of one model directory in this process, one image and one expert at a time."""

    def __init__(self, model_dir: Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        pin_threads(self.runtime.threads)
        self.requester = Requester(model_dir)
        self.config = self.requester.config
        self.notes: list[str] = []
        found, refused = survey(model_dir)
        if refused:
            named = "; ".join(f"{one.file}: {one.why}" for one in refused[:8])
            raise WeightsError(f"{model_dir} is damaged ({named}): fetch it again")
        self.experts: dict[int, PreparedExpert] = {
            file.number: load_expert(model_dir, file.number) for file in found
        }
        missing = sorted(set(range(self.config.num_experts)) - self.experts.keys())
        if missing:
            names = ", ".join(f"expert_{number}" for number in missing)
            raise WeightsError(f"{model_dir} lacks {names}: one process needs every expert")

    def request(self, prompt: str, **options: Any) -> GenerationRequest:
        """A request with this model's defaults for whatever is not named; top_k None is full."""
        return self.config.request(prompt, **options)

    def __call__(
        self,
        request: GenerationRequest,
        progress: Progress | None = None,
        replay: Any = None,
    ) -> Generation:
        """Draw. `replay` is a result's `routing`: its experts and weights, the router not asked."""
        request.check(self.config.num_experts)
        imposed = None if replay is None else recorded(replay, request, self.config.num_experts)
        done = Generation(request, warnings=self.requester.warnings(request.prompt))
        done.seconds = dict.fromkeys(("encode", "route", "experts", "advance", "decode"), 0.0)
        with _timed(done.seconds, "total"):
            with _timed(done.seconds, "encode"):
                context = self.requester.encode(request.prompt)
                null = self.requester.encode_null(request.negative_prompt)
            done.latents, done.routing = self._sample(
                request, context, null, done.seconds, progress, imposed
            )
            with _timed(done.seconds, "decode"):
                done.pixels = [self.requester.decode(latent) for latent in done.latents]
        return done

    def _sample(
        self,
        request: GenerationRequest,
        context: Context,
        null: Context,
        seconds: dict[str, float],
        progress: Progress | None,
        imposed: Routing | None,
    ) -> tuple[list[Tensor], list[list[Choice]]]:
        times = self.requester.times(request.steps)
        latents = [self.requester.start(request.seed + i) for i in range(request.n)]
        routing: list[list[Choice]] = [[] for _ in latents]
        for step, (t, t_next) in enumerate(itertools.pairwise(times)):
            with _timed(seconds, "route"):
                choices = (
                    [self.requester.route(x, t, request.top_k) for x in latents]
                    if imposed is None
                    else [image[step] for image in imposed]
                )
            if progress:
                progress(step, request.steps, [choice.experts for choice in choices])
            for i, choice in enumerate(choices):
                routing[i].append(choice)
                row = Row(
                    latents[i], t, self.requester.network_time(t),
                    context.hash, null.hash, request.guidance_scale,
                )  # fmt: skip
                with _timed(seconds, "experts"):
                    answers = {e: self._ask(e, row, context, null) for e in choice.experts}
                with _timed(seconds, "advance"):
                    latents[i] = self.requester.advance(latents[i], answers, choice, t, t_next)
        return latents, routing

    def _ask(self, expert: int, row: Row, context: Context, null: Context) -> Tensor:
        prepared = self.experts[expert]
        while missing := prepared.missing([row]):  # learning one may forget another
            for wanted in missing:
                prepared.learn(wanted, context.tensor if wanted == context.hash else null.tensor)
        velocity = prepared.velocity([row])[0]
        if not bool(torch.isfinite(velocity).all()):
            raise NotFinite(f"expert {expert} answered with a velocity that is not finite")
        return velocity


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
