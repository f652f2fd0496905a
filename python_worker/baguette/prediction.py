"""What a network predicts, turned into velocity at the edge; only this file knows the others.

Called by families whose experts predict something other than velocity, which is all the sampler
sees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_ALPHA = 0.01
MAX_X0 = 20.0


def to_velocity(objective: str, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Turn a guided prediction (N, C, S, S) into velocity eps - x0; t broadcasts against it.

    "eps_cosine" is the DDPM expert of the decentralised follow-up (arXiv 2603.06741): a cosine
    schedule alpha = cos(pi t / 2), sigma = sin(pi t / 2), x0 clamped to +-20. The clamp is not
    linear, so guidance must already have been applied.
    """
    if objective == "velocity":
        return prediction
    if objective != "eps_cosine":
        raise ValueError(f"got objective {objective!r} but expected velocity or eps_cosine")
    alpha = torch.cos(t * math.pi / 2).clamp(min=MIN_ALPHA)
    sigma = torch.sin(t * math.pi / 2)
    x0 = ((x_t - sigma * prediction) / alpha).clamp(-MAX_X0, MAX_X0)
    return prediction - x0
