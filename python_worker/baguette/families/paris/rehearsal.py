"""Questions as generations ask them, for measuring an expert without a picture.

Called by the expert worker's probes. Keeps two contexts in the expert until `end`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baguette.families.paris.expert import PreparedExpert, Row

_CONTEXTS = ("rehearsal", "rehearsal-null")


class Rehearsal:
    """Rows of one step of one request: latents differ, time and contexts are shared."""

    def __init__(self, expert: PreparedExpert, tokens: int) -> None:
        self.expert = expert
        self._tokens = tokens

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """The guided velocities of these rows, by their numbers."""
        questions = [self._row(number) for number in rows]
        # Real requests may have pushed ours out since the last call.
        for name in self.expert.missing(questions):
            noise = self._noise(_CONTEXTS.index(name), self._tokens, self._width())
            self.expert.learn(name, noise, keep=_CONTEXTS)
        return self.expert.velocity(questions)

    def end(self) -> None:
        """Leave nothing behind in the expert."""
        self.expert.forget(_CONTEXTS)

    def _row(self, number: int) -> Row:
        config = self.expert.module.config
        shape = (config.in_channels, config.image_size, config.image_size)
        return Row(
            t=0.5,
            network_t=500.0,
            context=_CONTEXTS[0],
            null_context=_CONTEXTS[1],
            guidance_scale=2.0,
            latent=self._noise(number, *shape),
        )

    def _width(self) -> int:
        return self.expert.module.config.text_embed_dim

    @staticmethod
    def _noise(seed: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
