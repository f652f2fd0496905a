"""What a request becomes in one process: its pictures, how they came about, and what that took.

Filled by the pipeline and its two ways of sampling, read by the command lines and the tests. Dies
with its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from baguette.image import tensor_sha256
from baguette.mixture import Choice
from baguette.request import GenerationRequest
from baguette.reuse import calls_saved

Progress = Callable[[int, int, list[tuple[int, ...]]], None]
"""Called before each step with its number, how many there are, and each image's experts."""

PARTS = ("encode", "route", "experts", "advance", "decode")


@dataclass
class Generation:
    """What came out: per image its pixels uint8 (H, W, 3), latent (C, S, S) fp32 and routing.

    `reused` says of each image and step whether the velocities of the step before were used again.
    """

    request: GenerationRequest
    pixels: list[Tensor] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    routing: list[list[Choice]] = field(default_factory=list)
    reused: list[list[bool]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The record other programs can hold this picture to; no prompt in it."""
        return {
            "seed": self.request.seed,
            "steps": self.request.steps,
            "guidance_scale": self.request.guidance_scale,
            "top_k": self.request.top_k or "full",
            "cache": self.request.cache,
            "threads": torch.get_num_threads(),
            "images": [
                {
                    "seed": self.request.seed + i,
                    "pixels_sha256": tensor_sha256(pixels),
                    "latent_sha256": tensor_sha256(latent),
                    "reused": saved,
                }
                for i, (pixels, latent, saved) in enumerate(
                    zip(self.pixels, self.latents, self.saved(), strict=True)
                )
            ],
            "routing": [
                [_line(*step) for step in zip(image, reused, strict=True)]
                for image, reused in zip(self.routing, self.reused, strict=True)
            ],
            "seconds": self.seconds,
            "warnings": self.warnings,
        }

    def saved(self) -> list[int]:
        """How many expert calls each image did without."""
        return [
            calls_saved([choice.experts for choice in image], reused)
            for image, reused in zip(self.routing, self.reused, strict=True)
        ]

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add what the inside takes to the seconds of this part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def _line(choice: Choice, reused: bool) -> dict[str, Any]:
    line = {"experts": choice.experts, "weights": choice.weights, "margin": choice.margin}
    return line | {"reused": True} if reused else line
