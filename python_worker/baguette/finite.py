"""Whether numbers are numbers. Asked of every answer: damage is told where it began. Pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def all_finite(values: Tensor) -> bool:
    """No NaN and no infinity in `values`, of any shape and floating dtype.

    A sum that is finite says so in one pass: whatever is not would be in it. One that is not may
    have overflowed.
    """
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())
