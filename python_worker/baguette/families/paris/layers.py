"""The layers the Paris expert and router share, with the published parameter names.

Used by `expert.py` and `router.py` only. Two surprises, both for the sake of equal bytes between
batch sizes (docs/internals/numerics.md): the patch embedding stores a convolution's weight but
runs as a reshape and a linear, and attention stores nn.MultiheadAttention's packing but runs as
linears and scaled_dot_product_attention. And the layers call the modules in them by their forward:
with paris-mini a module's own call takes as long as a small layer.

Symbols: N batch, T patch tokens, L text tokens, D hidden size, H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baguette.stored import Linear, linear

TIME_FREQUENCIES = 256
MAX_PERIOD = 10_000.0


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of DiT: t (N,) float32 -> (N, 256) float32, cosines first."""
    half = TIME_FREQUENCIES // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * steps / half)[None]  # (N, 128)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbed(nn.Module):
    """t (N,) -> (N, D) by Linear(SiLU(Linear(sincos)))."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(TIME_FREQUENCIES, hidden_size), nn.SiLU(), Linear(hidden_size, hidden_size)
        )

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; its weights may be kept in less."""
        return next(self.mlp.parameters()).dtype

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(timestep_embedding(t).to(self.dtype))


class PatchEmbed(nn.Module):
    """Latent (N, C, S, S) -> tokens (N, T, D), patches in row-major order."""

    def __init__(self, channels: int, hidden_size: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(hidden_size, channels, patch, patch))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        p = self.patch
        x = x.reshape(n, c, height // p, p, width // p, p)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * p * p)  # (N, T, C*p*p)
        return F.linear(x, self.weight.flatten(1), self.bias)


class Attention(nn.Module):
    """nn.MultiheadAttention's parameters (q;k;v packed); forward is self-attention."""

    kept_small = ("in_proj_weight",)

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.out_proj = Linear(hidden_size, hidden_size)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        n, t, _ = x.shape
        return x.reshape(n, t, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _merge(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = F.scaled_dot_product_attention(q, k, v)  # (N, H, T, D/H)
        return self.out_proj.forward(x.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        return self._merge(*self._split(linear(x, self.in_proj_weight, self.in_proj_bias), 3))

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text (N, L, D) -> keys, values, each (N, H, L, D/H); constant over a picture's steps."""
        d = self.out_proj.in_features
        packed = linear(text, self.in_proj_weight, self.in_proj_bias, begin=d)
        k, v = self._split(packed, 2)
        return k.contiguous(), v.contiguous()

    def cross(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries from x (N, T, D) against keys and values made by `keys_values`."""
        n, t, d = x.shape  # not _split: of one part the fewer steps are measurably faster
        q = linear(x, self.in_proj_weight, self.in_proj_bias, end=d)
        return self._merge(q.view(n, t, self.heads, -1).transpose(1, 2), k, v)


class Mlp(nn.Sequential):
    """Linear, tanh-GELU, Linear, under the keys `0` and `2`; `ratio` times as wide in between."""

    def __init__(self, hidden_size: int, ratio: float) -> None:
        inner = int(hidden_size * ratio)
        first, second = Linear(hidden_size, inner), Linear(inner, hidden_size)
        super().__init__(first, nn.GELU(approximate="tanh"), second)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        for module in self:
            x = module.forward(x)
        return x


def sincos_2d(hidden_size: int, grid: int) -> Tensor:
    """DiT's fixed 2-D position embedding, (1, grid*grid, D) float32: where training starts."""
    quarter = hidden_size // 4
    omega = 1.0 / MAX_PERIOD ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    parts = []
    for axis in (column, row):
        angles = axis.reshape(-1).double()[:, None] * omega[None]
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1).float()[None]


def initialise(module: nn.Module) -> None:
    """DiT's initialisation for training from nothing: Xavier linears, zeroed gates and outputs."""
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "scale_shift_table")):
            nn.init.normal_(parameter, std=0.02)
        elif name == "pos_embed":
            grid = math.isqrt(parameter.shape[1])
            parameter.data.copy_(sincos_2d(parameter.shape[2], grid))
        elif ".adaLN_modulation." in name or name.startswith("final_layer.linear"):
            nn.init.zeros_(parameter)
        elif parameter.dim() >= 2:
            nn.init.xavier_uniform_(parameter.flatten(1) if parameter.dim() > 2 else parameter)
        elif not name.endswith("weight"):
            nn.init.zeros_(parameter)
