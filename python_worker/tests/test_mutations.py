"""Every likely mistake in the networks is larger than the bound they are held to.

A mistake is one step of the float64 networks replaced; the package's own network, which is equal to
the unchanged ones (`test_faithful.py`), must then be told from it clearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from float64_paris import (
    Array,
    Float64Expert,
    Float64Network,
    Float64Router,
    Six,
    largest_difference,
)
from random_paris import (
    SMALL_EXPERT,
    SMALL_ROUTER,
    empty_expert,
    empty_router,
    filled,
    random_state,
    shapes_of,
)

BOUND = 1e-5  # test_faithful.FP32
NOTICED = 3 * BOUND

Steps = Mapping[str, Callable[..., Any]]


def six_in_order(*order: int) -> Steps:
    def six(_: Float64Network, rows: Array) -> Six:
        return Six(*(rows[:, i : i + 1] for i in order))

    return {"six": six}


def packed_in_order(*order: int) -> Steps:
    """`order` says which third of in_proj is read as q, k and v."""

    def packed(net: Float64Network, of: Array, context: Array, name: str) -> list[Array]:
        weight, bias = net.tensor(f"{name}.in_proj_weight"), net.tensor(f"{name}.in_proj_bias")
        thirds = list(zip(np.split(weight, 3), np.split(bias, 3), strict=True))
        sources = (of, context, context)
        return [x @ thirds[i][0].T + thirds[i][1] for i, x in zip(order, sources, strict=True)]

    return {"packed": packed}


def exact_gelu(_: Float64Network, x: Array) -> Array:
    return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()


def angles(t: Array, divisor: float) -> Array:
    return t[:, None] * np.exp(-np.log(10_000.0) * np.arange(128) / divisor)[None]


def sincos(first: Any, second: Any, divisor: float = 128, scale: float = 1) -> Steps:
    def step(_: Float64Network, t: Array) -> Array:
        turned = angles(scale * t, divisor)
        return np.concatenate([first(turned), second(turned)], axis=1)

    return {"sincos": step}


def wrong_eps(net: Float64Network, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 10 * net.eps)


def kernel_transposed(net: Float64Network, x: Array) -> Array:
    kernel = net.tensor("patch_embed.weight").transpose(0, 1, 3, 2)
    grid = sum(
        np.einsum("nchw,dc->nhwd", x[:, :, i::2, j::2], kernel[:, :, i, j])
        for i in range(2)
        for j in range(2)
    )
    return net.in_order(grid) + net.tensor("patch_embed.bias")


def column_after_column(_: Float64Network, grid: Array) -> Array:
    return grid.transpose(0, 2, 1, 3).reshape(grid.shape[0], -1, grid.shape[-1])


def heads_interleaved(net: Float64Network, x: Array) -> Array:
    return x.reshape(*x.shape[:2], -1, net.heads).transpose(0, 3, 1, 2)


def placed(pixel_of: Callable[[Array, tuple[int, int], int, int], Array]) -> Steps:
    """The unpatchify whose pixel (N, C) of a token is what `pixel_of` says."""

    def place(
        _: Float64Expert, out: Array, token: Array, at: tuple[int, int],
        offset: tuple[int, int], p: int,
    ) -> None:  # fmt: skip
        pixel = pixel_of(token, offset, p, out.shape[1])
        out[:, :, at[0] * p + offset[0], at[1] * p + offset[1]] = pixel

    return {"place": place}


def channels_first(token: Array, offset: tuple[int, int], p: int, channels: int) -> Array:
    return token.reshape(len(token), channels, p, p)[:, :, offset[0], offset[1]]


def columns_first(token: Array, offset: tuple[int, int], p: int, channels: int) -> Array:
    return token.reshape(len(token), p, p, channels)[:, offset[1], offset[0]]


def from_t0(net: Float64Expert, t_emb: Array, t0: Array) -> Array:
    return net.tensor("final_layer.scale_shift_table") + t0[:, :2]


def final_swapped(net: Float64Expert, t_emb: Array, t0: Array) -> Array:
    return Float64Expert.final_rows(net, t_emb, t0)[:, ::-1]


def t0_without_silu(net: Float64Expert, t_emb: Array) -> Array:
    return net.linear(t_emb, "t_block.1").reshape(len(t_emb), 6, -1)


def pooled(_: Float64Expert, text: Array) -> Array:
    return text.mean(axis=1, keepdims=True)


def reverse_order(net: Float64Network) -> list[int]:
    return list(reversed(range(net.layers)))


def two_layers_swapped(net: Float64Network) -> list[int]:
    return [1, 0, *range(2, net.layers)]


COMMON: dict[str, Steps] = {
    "shift and scale swapped": six_in_order(1, 0, 2, 4, 3, 5),
    "gate before shift and scale": six_in_order(1, 2, 0, 4, 5, 3),
    "the gates swapped": six_in_order(0, 1, 5, 3, 4, 2),
    "attention's three and the MLP's swapped": six_in_order(3, 4, 5, 0, 1, 2),
    "in_proj read as k, q, v": packed_in_order(1, 0, 2),
    "in_proj read as q, v, k": packed_in_order(0, 2, 1),
    "in_proj read as v, k, q": packed_in_order(2, 1, 0),
    "heads interleaved": {"split_heads": heads_interleaved},
    "sines first": sincos(np.sin, np.cos),
    "frequencies over 127": sincos(np.cos, np.sin, divisor=127),
    "time in 0..1": sincos(np.cos, np.sin, scale=1e-3),
    "time off by a thousandth": sincos(np.cos, np.sin, scale=0.999),
    "exact GELU": {"gelu": exact_gelu},
    "eps ten times as large": {"layer_norm": wrong_eps},
    "pos_embed missing": {"positioned": lambda _, tokens: tokens},
    "patches column by column": {"in_order": column_after_column},
    "the patch's kernel transposed": {"patch_tokens": kernel_transposed},
    "layers in reverse": {"order": reverse_order},
    "two layers swapped": {"order": two_layers_swapped},
    "a layer missing": {"order": lambda net: list(range(net.layers - 1))},
}
EXPERT: dict[str, Steps] = COMMON | {
    "unpatchify channels first": placed(channels_first),
    "unpatchify columns before rows": placed(columns_first),
    "the final layer fed t0": {"final_rows": from_t0},
    "the final shift and scale swapped": {"final_rows": final_swapped},
    "t0 without its SiLU": {"shared_modulation": t0_without_silu},
    "the cross-attention's query normalised": {"asking": lambda net, h: net.layer_norm(h)},
    "the last text position masked": {"attended": lambda _, text: text[:, :-1]},
    "text pooled": {"attended": pooled},
}
ROUTER: dict[str, Steps] = COMMON | {
    "head_1 SiLU": {"head_1": Float64Router.silu},
    "head_3 SiLU": {"head_3": Float64Router.silu},
    "head_1 missing": {"head_1": lambda _, x: x},
    "head_3 missing": {"head_3": lambda _, x: x},
    "CLS last, token 0 read": {
        "with_cls": lambda net, tokens: np.roll(Float64Router.with_cls(net, tokens), -1, axis=1)
    },
    "tokens averaged": {"read": lambda _, h: h.mean(axis=1)},
    "a final LayerNorm": {"read": lambda net, h: net.layer_norm(h)[:, 0]},
    "CLS given the first position": {
        "with_cls": lambda net, tokens: (
            Float64Router.with_cls(net, tokens)
            + np.eye(1, tokens.shape[1] + 1).T * net.tensor("pos_embed")[:, :1]
        )
    },
}


def expert_error(steps: Steps) -> float:
    """How far the package's expert is from the float64 one with these steps replaced."""
    config = SMALL_EXPERT
    state = random_state(shapes_of(empty_expert(config)), seed=1)
    generator = torch.Generator().manual_seed(2)
    size = (config.in_channels, config.image_size, config.image_size)
    x = torch.randn(1, *size, generator=generator)
    text = torch.randn(1, 10, config.text_embed_dim, generator=generator)
    t = torch.tensor([400.0])
    with torch.inference_mode():
        ours = filled(empty_expert(config), state)(x, t, text)
    network = type("Mistaken", (Float64Expert,), dict(steps))
    return largest_difference(ours, network(state, config.num_heads, config.num_layers)(x, t, text))


def router_error(steps: Steps) -> float:
    """As expert_error, for the router."""
    config = SMALL_ROUTER
    state = random_state(shapes_of(empty_router(config)), seed=1)
    size = (config.in_channels, config.image_size, config.image_size)
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([400.0])
    with torch.inference_mode():
        ours = filled(empty_router(config), state)(x, t)
    network = type("Mistaken", (Float64Router,), dict(steps))
    return largest_difference(ours, network(state, config.num_heads, config.num_layers)(x, t))


def test_without_a_mistake_there_is_no_difference() -> None:
    assert expert_error({}) <= BOUND
    assert router_error({}) <= BOUND


@pytest.mark.parametrize("mistake", EXPERT)
def test_a_mistake_in_the_expert_is_noticed(mistake: str) -> None:
    assert expert_error(EXPERT[mistake]) > NOTICED


@pytest.mark.parametrize("mistake", ROUTER)
def test_a_mistake_in_the_router_is_noticed(mistake: str) -> None:
    assert router_error(ROUTER[mistake]) > NOTICED
