"""Symmetric INT8 of a weight, one scale per output channel. Pure; called by loaders and `quantize`.

w ≈ q * s with s = max|w| / 127 over each row (Jacob et al. 2018, arXiv 1712.05877, section 3, with
the zero point at 0). Only 2-D weights are worth it; biases and tables stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 127


@dataclass(frozen=True)
class Quantized:
    """A weight (out, in): `values` int8 (out, in), `scale` fp32 (out, 1)."""

    values: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in): every value times its row's scale, multiplied in fp32."""
        return (self.values.float() * self.scale).to(dtype)


def quantize(weight: Tensor) -> Quantized:
    """weight (out, in) of any float dtype -> the nearest INT8 of each row; a row of zeros stays."""
    if weight.dim() != 2:
        raise ValueError(f"got a weight of shape {tuple(weight.shape)} but expected two dimensions")
    wide = weight.float()
    scale = wide.abs().amax(dim=1, keepdim=True) / LEVELS
    steps = torch.where(scale > 0, wide / scale, torch.zeros_like(wide))
    return Quantized(steps.round().clamp(-LEVELS, LEVELS).to(torch.int8), scale)
