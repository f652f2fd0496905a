"""Weights that are kept smaller than they compute: expanded one layer at a time, never for good.

A `Stored` stands where a 2-D weight would; `linear` expands the rows it needs into one buffer that
every layer of the process shares, then multiplies as usual. Called by the families' layers. On a
GPU the order of its stream keeps two layers apart; on a CPU each thread has a buffer of its own.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baguette.quantization import Quantized


class Stored(nn.Module):
    """A weight (out, in) as it is kept: bf16, or int8 with a scale (out, 1) in fp32."""

    scale: Tensor | None
    values: Tensor

    def __init__(self, weight: Tensor | Quantized) -> None:
        super().__init__()
        values, scale = (
            (weight.values, weight.scale) if isinstance(weight, Quantized) else (weight, None)
        )
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    def expanded(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> Tensor:
        """Rows [begin, end) in `dtype`, in the shared buffer: valid until the next call."""
        values = self.values[begin:end]
        scale = None if self.scale is None else self.scale[begin:end]
        if torch.compiler.is_compiling():  # the compiler plans its own buffers, and fuses this
            return values.to(dtype) if scale is None else (values.float() * scale).to(dtype)
        target = _shared(values, dtype)
        if scale is None:
            return target.copy_(values)
        if values.is_cuda:
            return torch.mul(values, scale, out=target)
        # A CPU multiplies mixed types one by one: three passes of one type each are faster.
        wide = _shared(values, torch.float32)
        torch.mul(wide.copy_(values), scale, out=wide)
        return wide if dtype == torch.float32 else target.copy_(wide)


class Linear(nn.Linear):
    """nn.Linear whose weight may be a Stored one."""

    kept_small = ("weight",)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(
    x: Tensor,
    weight: Tensor | Stored,
    bias: Tensor,
    begin: int = 0,
    end: int | None = None,
) -> Tensor:
    """x (..., in) times rows [begin, end) of weight (out, in), plus their bias -> (..., rows)."""
    if isinstance(weight, Stored):
        return F.linear(x, weight.expanded(x.dtype, begin, end), bias[begin:end])
    if begin == 0 and end is None:  # two slices take as long as a small layer
        return F.linear(x, weight, bias)
    return F.linear(x, weight[begin:end], bias[begin:end])


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.held: dict[tuple[torch.device, torch.dtype], Tensor] = {}


_buffers = _Buffers()


def _shared(values: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of this shape, in the one buffer of this thread, device and dtype."""
    place = (values.device, dtype)
    held = _buffers.held
    if place not in held or held[place].numel() < values.numel():
        held.pop(place, None)  # the old one goes before the new one comes
        with torch.inference_mode(False):  # one made inside could not be written outside
            held[place] = torch.empty(values.numel(), dtype=dtype, device=values.device)
    return held[place][: values.numel()].view(values.shape)
