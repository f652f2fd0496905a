"""The Paris expert and router written a second time, in plain NumPy and float64, for the tests.

Written from the facts about the published files, not from `baguette.families.paris`, and it shares
no code with it: loops, einsum and a softmax spelt out. Every step is a method of its own, so that
`test_faithful.py` can replace one by a likely mistake and see that the comparison notices. A weight
is widened when it is used and into a buffer used again, so the published size needs little memory.

Symbols: N batch, T patch tokens, L text tokens, D hidden size, H heads, C channels, p patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
State = Mapping[str, ArrayLike]


class Six(NamedTuple):
    """A block's modulation, each (N, 1, D)."""

    shift_a: Array
    scale_a: Array
    gate_a: Array
    shift_m: Array
    scale_m: Array
    gate_m: Array


class Float64Network:
    """What expert and router have in common."""

    def __init__(self, state: State, heads: int, layers: int, eps: float = 1e-6) -> None:
        self.state = state
        self.heads = heads
        self.layers = layers
        self.eps = eps
        self._scratch: dict[tuple[int, ...], Array] = {}

    def tensor(self, name: str) -> Array:
        """A tensor in float64; it holds until the next one of the same shape."""
        stored = np.asarray(self.state[name])
        wide = self._scratch.setdefault(stored.shape, np.empty(stored.shape))
        np.copyto(wide, stored)
        return wide

    def linear(self, x: Array, name: str) -> Array:
        """x (..., in) -> (..., out)."""
        return self.affine(x, f"{name}.weight", f"{name}.bias")

    def affine(self, x: Array, weight: str, bias: str) -> Array:
        rows = x.reshape(-1, x.shape[-1])
        out = rows @ self.tensor(weight).T
        out += self.tensor(bias)
        return out.reshape(*x.shape[:-1], -1)

    def sincos(self, t: Array) -> Array:
        """t (N,) -> (N, 256), cosines first."""
        angles = np.stack([t * np.exp(-np.log(10_000.0) * i / 128) for i in range(128)], axis=1)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def time_embedding(self, t: Array) -> Array:
        """t (N,) -> t_emb (N, D)."""
        hidden = self.silu(self.linear(self.sincos(t), "time_embed.mlp.0"))
        return self.linear(hidden, "time_embed.mlp.2")

    def silu(self, x: Array) -> Array:
        return x / (1 + np.exp(-x))

    def gelu(self, x: Array) -> Array:
        cubic = x * x
        cubic *= 0.044715
        cubic += 1
        cubic *= x
        cubic *= np.sqrt(2 / np.pi)
        out = np.tanh(cubic, out=cubic)
        out += 1
        out *= x
        out *= 0.5
        return out

    def layer_norm(self, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("...d,...d->...", centred, centred) / x.shape[-1]
        centred /= np.sqrt(variance + self.eps)[..., None]
        return centred

    def modulated(self, x: Array, shift: Array, scale: Array) -> Array:
        return self.layer_norm(x) * (1 + scale) + shift

    def patch_tokens(self, x: Array) -> Array:
        """x (N, C, S, S) -> (N, T, D): the stored convolution, offset by offset, row by row."""
        kernel = self.tensor("patch_embed.weight")  # (D, C, p, p)
        p = kernel.shape[-1]
        grid = sum(
            np.einsum("nchw,dc->nhwd", x[:, :, i::p, j::p], kernel[:, :, i, j])
            for i in range(p)
            for j in range(p)
        )
        return self.in_order(grid) + self.tensor("patch_embed.bias")

    def in_order(self, grid: Array) -> Array:
        """grid (N, rows, columns, D) -> (N, T, D), row after row."""
        return grid.reshape(grid.shape[0], -1, grid.shape[-1])

    def positioned(self, tokens: Array) -> Array:
        return tokens + self.tensor("pos_embed")

    def six(self, rows: Array) -> Six:
        """rows (N, 6, D) -> the modulation of a block."""
        return Six(*(rows[:, i : i + 1] for i in range(6)))

    def split_heads(self, x: Array) -> Array:
        """x (N, T, D) -> (N, H, T, D/H): the first D/H numbers are the first head's."""
        heads = x.reshape(*x.shape[:2], self.heads, -1)
        return np.ascontiguousarray(heads.transpose(0, 2, 1, 3))

    def packed(self, of: Array, context: Array, name: str) -> tuple[Array, Array, Array]:
        """Queries of `of`, keys and values of `context`, by in_proj's three thirds."""
        weight, bias = self.tensor(f"{name}.in_proj_weight"), self.tensor(f"{name}.in_proj_bias")
        d = of.shape[-1]
        q, k, v = (
            (x.reshape(-1, d) @ weight[d * i : d * (i + 1)].T + bias[d * i : d * (i + 1)])
            for i, x in enumerate((of, context, context))
        )
        return q.reshape(of.shape), k.reshape(context.shape), v.reshape(context.shape)

    def attention(self, of: Array, context: Array, name: str) -> Array:
        """of (N, T, D) looks at context (N, L, D) -> (N, T, D)."""
        q, k, v = (self.split_heads(part) for part in self.packed(of, context, name))
        scores = q @ k.transpose(0, 1, 3, 2)  # (N, H, T, L)
        scores /= np.sqrt(q.shape[-1])
        scores -= scores.max(axis=-1, keepdims=True)
        weights = np.exp(scores, out=scores)
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(of.shape)
        return self.linear(mixed, f"{name}.out_proj")

    def mlp(self, x: Array, name: str) -> Array:
        return self.linear(self.gelu(self.linear(x, f"{name}.0")), f"{name}.2")

    def order(self) -> list[int]:
        """The layers as they are walked."""
        return list(range(self.layers))


class Float64Expert(Float64Network):
    """(x (N, C, S, S), t (N,) in network units, text (N, L, E)) -> velocity (N, C, S, S)."""

    def __call__(self, x: ArrayLike, t: ArrayLike, text: ArrayLike) -> Array:
        x, t, text = (np.asarray(a, dtype=np.float64) for a in (x, t, text))
        t_emb = self.time_embedding(t)
        t0 = self.shared_modulation(t_emb)
        context = self.linear(self.attended(text), "text_proj")
        h = self.positioned(self.patch_tokens(x))
        for layer in self.order():
            h = self.block(h, t0, context, f"layers.{layer}")
        rows = self.final_rows(t_emb, t0)  # (N, 2, D)
        h = self.modulated(h, rows[:, 0:1], rows[:, 1:2])
        return self.unpatchify(self.linear(h, "final_layer.linear"), x.shape)

    def shared_modulation(self, t_emb: Array) -> Array:
        """t_emb (N, D) -> t0 (N, 6, D)."""
        return self.linear(self.silu(t_emb), "t_block.1").reshape(len(t_emb), 6, -1)

    def attended(self, text: Array) -> Array:
        """All positions, padding too."""
        return text

    def block(self, h: Array, t0: Array, context: Array, name: str) -> Array:
        six = self.six(self.tensor(f"{name}.scale_shift_table") + t0)
        looked = self.modulated(h, six.shift_a, six.scale_a)
        h = h + six.gate_a * self.attention(looked, looked, f"{name}.attn")
        h = h + self.attention(self.asking(h), context, f"{name}.cross_attn")
        inner = self.modulated(h, six.shift_m, six.scale_m)
        return h + six.gate_m * self.mlp(inner, f"{name}.mlp")

    def asking(self, h: Array) -> Array:
        """What the cross-attention's queries are made of: h as it is."""
        return h

    def final_rows(self, t_emb: Array, t0: Array) -> Array:
        """Shift and scale of the final layer (N, 2, D): of t_emb itself, not of t0."""
        return self.tensor("final_layer.scale_shift_table") + t_emb[:, None]

    def unpatchify(self, h: Array, shape: tuple[int, ...]) -> Array:
        """h (N, T, p*p*C) -> (N, C, S, S)."""
        p = np.asarray(self.state["patch_embed.weight"]).shape[-1]
        out = np.empty((shape[0], h.shape[-1] // p**2, *shape[2:]))
        columns = shape[3] // p
        for token in range(h.shape[1]):
            row, column = divmod(token, columns)
            for i in range(p):
                for j in range(p):
                    self.place(out, h[:, token], (row, column), (i, j), p)
        return out

    def place(
        self, out: Array, token: Array, at: tuple[int, int], offset: tuple[int, int], p: int
    ) -> None:
        """Write one pixel (N, C) of a token: inside it rows, then columns, then channels."""
        channels = out.shape[1]
        first = (offset[0] * p + offset[1]) * channels
        pixel = token[:, first : first + channels]
        out[:, :, at[0] * p + offset[0], at[1] * p + offset[1]] = pixel


class Float64Router(Float64Network):
    """(x (N, C, S, S), t (N,) in network units) -> logits (N, K)."""

    def __call__(self, x: ArrayLike, t: ArrayLike) -> Array:
        x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
        signal = self.silu(self.time_embedding(t))
        h = self.with_cls(self.positioned(self.patch_tokens(x)))
        for layer in self.order():
            h = self.block(h, signal, f"layers.{layer}")
        return self.head(self.read(h))

    def with_cls(self, tokens: Array) -> Array:
        """The CLS token goes first and has no position."""
        cls = np.repeat(self.tensor("cls_token"), len(tokens), axis=0)
        return np.concatenate([cls, tokens], axis=1)

    def read(self, h: Array) -> Array:
        """Token 0, as it is: no final LayerNorm."""
        return h[:, 0]

    def block(self, h: Array, signal: Array, name: str) -> Array:
        rows = self.linear(signal, f"{name}.adaLN_modulation.1").reshape(len(signal), 6, -1)
        six = self.six(rows)
        looked = self.modulated(h, six.shift_a, six.scale_a)
        h = h + six.gate_a * self.attention(looked, looked, f"{name}.attn")
        inner = self.modulated(h, six.shift_m, six.scale_m)
        return h + six.gate_m * self.mlp(inner, f"{name}.mlp")

    def head_1(self, x: Array) -> Array:
        return self.gelu(x)

    def head_3(self, x: Array) -> Array:
        return self.gelu(x)

    def head(self, x: Array) -> Array:
        normed = self.layer_norm(self.head_1(self.linear(x, "head.0")))
        normed = normed * self.tensor("head.2.weight") + self.tensor("head.2.bias")
        return self.linear(self.head_3(normed), "head.4")


def guided(null: Array, conditional: Array, scale: float) -> Array:
    """Classifier-free guidance."""
    return null + scale * (conditional - null)


def largest_difference(ours: ArrayLike, reference: ArrayLike) -> float:
    """max |ours - reference| / max |reference|, in float64."""
    wanted = np.asarray(reference, dtype=np.float64)
    return float(np.abs(np.asarray(ours, dtype=np.float64) - wanted).max() / np.abs(wanted).max())
