"""Expert and router against the float64 networks of `float64_paris.py`, at the published size too.

The bounds are on max|ours - reference| / max|reference| of each row. Measured is the largest seen
with random weights, at the published size and a slim one; most of what fp32 differs by at t = 1000
comes from float32 angles under the time's cosines, which err in proportion to t:

| | measured | bound |
|---|---|---|
| fp32 | 3.0e-6 | 1e-5 |
| fp32, guided by 7.5 | 5.0e-6 | 2e-5 |
| INT8 weights, computed in fp32 | 1.2e-2 | 3e-2 |
| bf16 weights, computed in fp32 | 7.1e-3 | 2e-2 |
| bf16 weights and activations | 2.6e-2 | 6e-2 |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from baguette.device import Numbers
from baguette.families.paris.config import ExpertConfig, RouterConfig, Settings
from baguette.families.paris.expert import Expert, PreparedExpert, Row
from baguette.quantization import quantize
from baguette.runtime import cores
from baguette.weights import fill
from float64_paris import Array, Float64Expert, Float64Router, guided, largest_difference
from random_paris import (
    SLIM_EXPERT,
    SMALL_EXPERT,
    SMALL_ROUTER,
    State,
    empty_expert,
    empty_router,
    filled,
    random_state,
    shapes_of,
)

FP32 = 1e-5
GUIDED = 2e-5  # guidance by s adds up to 2s - 1 times the rounding of its branches
INT8 = 3e-2
BF16_STORED = 2e-2
BF16_COMPUTED = 6e-2

LATEST, EARLY = 1000.0, 37.5  # in the networks' units


@pytest.fixture
def every_core() -> Iterator[None]:
    """For the published size; the small ones are faster with what the process has."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    yield
    torch.set_num_threads(before)


def published_expert_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.weight": (1152, 4, 2, 2), "patch_embed.bias": (1152,),
        "pos_embed": (1, 256, 1152),
        "time_embed.mlp.0.weight": (1152, 256), "time_embed.mlp.0.bias": (1152,),
        "time_embed.mlp.2.weight": (1152, 1152), "time_embed.mlp.2.bias": (1152,),
        "text_proj.weight": (1152, 768), "text_proj.bias": (1152,),
        "t_block.1.weight": (6912, 1152), "t_block.1.bias": (6912,),
        "final_layer.linear.weight": (16, 1152), "final_layer.linear.bias": (16,),
        "final_layer.scale_shift_table": (2, 1152),
    }  # fmt: skip
    for i in range(28):
        shapes[f"layers.{i}.scale_shift_table"] = (6, 1152)
        shapes |= attention_shapes(f"layers.{i}.attn", 1152)
        shapes |= attention_shapes(f"layers.{i}.cross_attn", 1152)
        shapes |= mlp_shapes(f"layers.{i}.mlp", 1152)
    return shapes


def published_router_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.weight": (768, 4, 2, 2), "patch_embed.bias": (768,),
        "pos_embed": (1, 256, 768), "cls_token": (1, 1, 768),
        "time_embed.mlp.0.weight": (768, 256), "time_embed.mlp.0.bias": (768,),
        "time_embed.mlp.2.weight": (768, 768), "time_embed.mlp.2.bias": (768,),
        "head.0.weight": (768, 768), "head.0.bias": (768,),
        "head.2.weight": (768,), "head.2.bias": (768,),
        "head.4.weight": (8, 768), "head.4.bias": (8,),
    }  # fmt: skip
    for i in range(12):
        shapes[f"layers.{i}.adaLN_modulation.1.weight"] = (4608, 768)
        shapes[f"layers.{i}.adaLN_modulation.1.bias"] = (4608,)
        shapes |= attention_shapes(f"layers.{i}.attn", 768) | mlp_shapes(f"layers.{i}.mlp", 768)
    return shapes


def attention_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,),
        f"{name}.out_proj.weight": (width, width), f"{name}.out_proj.bias": (width,),
    }  # fmt: skip


def mlp_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.0.weight": (4 * width, width), f"{name}.0.bias": (4 * width,),
        f"{name}.2.weight": (width, 4 * width), f"{name}.2.bias": (width,),
    }  # fmt: skip


def test_the_published_expert_has_605970448_parameters_in_378_tensors() -> None:
    found = shapes_of(empty_expert(ExpertConfig()))
    assert found == published_expert_shapes()
    assert sum(int(np.prod(shape)) for shape in found.values()) == 605_970_448
    assert len(found) == 378


def test_the_published_router_has_129136904_parameters_in_134_tensors() -> None:
    found = shapes_of(empty_router(RouterConfig()))
    assert found == published_router_shapes()
    assert sum(int(np.prod(shape)) for shape in found.values()) == 129_136_904
    assert len(found) == 134


def question(config: ExpertConfig, length: int = 77) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows: other latents, times and texts."""
    generator = torch.Generator().manual_seed(5)
    size = (config.in_channels, config.image_size, config.image_size)
    x = torch.randn(2, *size, generator=generator)
    text = torch.randn(2, length, config.text_embed_dim, generator=generator)
    return x, torch.tensor([LATEST, EARLY]), text


def reference(state: State, config: ExpertConfig, eps: float = 1e-6) -> Float64Expert:
    return Float64Expert(state, config.num_heads, config.num_layers, eps)


@torch.inference_mode()
def answer(module: nn.Module, *question: Tensor) -> Array:
    return module(*question).double().numpy()


def worst_row(ours: Array, wanted: Array) -> float:
    return max(largest_difference(a, b) for a, b in zip(ours, wanted, strict=True))


def stored_in_int8(state: State) -> State:
    """What a file of INT8 weights holds: every 2-D weight on its row's 255 steps, nothing else."""
    return {
        name: quantize(torch.from_numpy(array)).dequantized().numpy()
        if array.ndim == 2 and name.endswith("weight")
        else array
        for name, array in state.items()
    }


@pytest.mark.timeout(900)  # 20 s on two free cores, many times that on cores shared with others
@pytest.mark.usefixtures("every_core")
def test_the_expert_of_published_size_is_the_float64_one_within_every_bound() -> None:
    config = ExpertConfig()
    state = random_state(published_expert_shapes(), seed=1)
    x, t, text = question(config)
    with ThreadPoolExecutor() as pool:
        rows = pool.map(
            lambda i: reference(state, config)(x[i : i + 1], t[i : i + 1], text[i : i + 1]),
            range(2),
        )
        wanted = np.concatenate(list(rows))
    expert = filled(empty_expert(config), state)
    assert worst_row(answer(expert, x, t, text), wanted) <= FP32

    x, t, text, wanted = x[:1], t[:1], text[:1], wanted[:1]
    half = empty_expert(config)
    half.load_state_dict({k: v.bfloat16() for k, v in expert.state_dict().items()}, assign=True)
    rounded = answer(half, x.bfloat16(), t, text.bfloat16())
    del half
    assert FP32 < worst_row(rounded, wanted) <= BF16_COMPUTED

    filled(expert, stored_in_int8(state))
    assert FP32 < worst_row(answer(expert, x, t, text), wanted) <= INT8


@pytest.mark.usefixtures("every_core")
def test_the_router_of_published_size_is_the_float64_one() -> None:
    config = RouterConfig()
    state = random_state(published_router_shapes(), seed=2)
    x, t, _ = question(ExpertConfig())
    wanted = Float64Router(state, config.num_heads, config.num_layers)(x, t)
    router = filled(empty_router(config), state)
    assert worst_row(answer(router, x, t), wanted) <= FP32
    router.to(torch.bfloat16)
    rounded = answer(router, x.bfloat16(), t)
    assert FP32 < worst_row(rounded, wanted) <= BF16_COMPUTED


@dataclass(frozen=True)
class Slim:
    """Weights in a file, a question, and what the float64 network says to it."""

    file: Path
    asked: tuple[Tensor, Tensor, Tensor]
    wanted: Array


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Slim:
    state = random_state(shapes_of(empty_expert(SLIM_EXPERT)), seed=3)
    file = tmp_path_factory.mktemp("slim") / "expert.safetensors"
    save_file({name: torch.from_numpy(array).clone() for name, array in state.items()}, file)
    asked = question(SLIM_EXPERT)
    return Slim(file, asked, reference(state, SLIM_EXPERT)(*asked))


@pytest.mark.parametrize(
    ("store", "compute", "bound"),
    [
        (torch.bfloat16, torch.float32, BF16_STORED),
        (torch.int8, torch.float32, INT8),
        (torch.bfloat16, torch.bfloat16, BF16_COMPUTED),
        (torch.int8, torch.bfloat16, BF16_COMPUTED),
    ],
)
def test_weights_kept_small_stay_within_their_bounds(
    slim: Slim, store: torch.dtype, compute: torch.dtype, bound: float
) -> None:
    expert = empty_expert(SLIM_EXPERT)
    fill(expert, slim.file, Numbers(torch.device("cpu"), compute, store))
    x, t, text = slim.asked
    ours = answer(expert, x.to(compute), t, text.to(compute))
    assert FP32 < worst_row(ours, slim.wanted) <= bound


def test_a_prepared_expert_answers_with_the_float64_guidance() -> None:
    state = random_state(shapes_of(empty_expert(SLIM_EXPERT)), seed=4)
    x, t, text = question(SLIM_EXPERT)
    null = torch.randn(77, SLIM_EXPERT.text_embed_dim, generator=torch.Generator().manual_seed(6))
    expert = filled(empty_expert(SLIM_EXPERT), state)
    assert isinstance(expert, Expert)
    prepared = PreparedExpert(expert)
    for name, context in {"null": null, "0": text[0], "1": text[1]}.items():
        prepared.learn(name, context)
    scales = (7.5, 3.0)
    rows = [Row(x[i], float(t[i]) / 1000, float(t[i]), str(i), "null", scales[i]) for i in range(2)]
    network = reference(state, SLIM_EXPERT)
    conditional, unconditional = network(x, t, text), network(x, t, torch.stack([null, null]))
    wanted = np.stack([guided(unconditional[i], conditional[i], scales[i]) for i in range(2)])
    assert worst_row(prepared.velocity(rows).double().numpy(), wanted) <= GUIDED
    alone = torch.cat([prepared.velocity([row]) for row in rows])
    assert worst_row(alone.double().numpy(), wanted) <= GUIDED


@pytest.mark.parametrize(
    ("config", "eps"),
    [
        (SMALL_EXPERT, 1e-6),
        (SMALL_EXPERT, 1e-5),
        (dataclasses.replace(SMALL_EXPERT, patch_size=4, mlp_ratio=2.0), 1e-6),
        (dataclasses.replace(SMALL_EXPERT, in_channels=3, out_channels=5, num_heads=1), 1e-6),
    ],
)
def test_an_expert_of_other_sizes_is_the_float64_one(config: ExpertConfig, eps: float) -> None:
    state = random_state(shapes_of(empty_expert(config)), seed=5)
    asked = question(config, length=10)
    ours = answer(filled(empty_expert(config, eps), state), *asked)
    assert worst_row(ours, reference(state, config, eps)(*asked)) <= FP32


HEADS = {"gelu_tanh": Float64Router.gelu, "silu": Float64Router.silu, "identity": lambda _, x: x}


@pytest.mark.parametrize("first", HEADS)
@pytest.mark.parametrize("third", HEADS)
def test_every_setting_of_the_routers_head_is_the_float64_one(first: str, third: str) -> None:
    settings = Settings(head_1=first, head_3=third, norm_eps=1e-5)
    state = random_state(shapes_of(empty_router(SMALL_ROUTER)), seed=6)
    named = type("Named", (Float64Router,), {"head_1": HEADS[first], "head_3": HEADS[third]})
    network = named(state, SMALL_ROUTER.num_heads, SMALL_ROUTER.num_layers, settings.norm_eps)
    x, t, _ = question(SMALL_EXPERT)
    ours = answer(filled(empty_router(SMALL_ROUTER, settings), state), x, t)
    assert worst_row(ours, network(x, t)) <= FP32
