"""Random weights for Paris networks of any size, in which every number counts and none is zero.

Zero gates or a saturated softmax would make a comparison vacuous, and a chaotic network would fail
it for rounding alone. With these spreads 28 layers neither lose their text (a tenth to a half of
the answer) nor multiply a difference in their weights by more than about three.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from baguette.families.paris.config import ExpertConfig, RouterConfig, Settings
from baguette.families.paris.expert import Expert
from baguette.families.paris.router import Router

State = dict[str, NDArray[np.float32]]

SMALL_EXPERT = ExpertConfig(
    hidden_size=48, num_layers=3, num_heads=3, in_channels=4, out_channels=4, text_embed_dim=24,
    image_size=8,
)  # fmt: skip
SMALL_ROUTER = RouterConfig(
    num_clusters=5, hidden_size=48, num_layers=3, num_heads=3, in_channels=4, image_size=8
)
# Every layer and token of the published expert, a sixteenth of its weights.
SLIM_EXPERT = dataclasses.replace(ExpertConfig(), hidden_size=288, num_heads=4)


def _spread(name: str, shape: tuple[int, ...]) -> float:
    if name.startswith(("pos_embed", "patch_embed")):
        return 0.05  # so small a variance that the first LayerNorm's eps shows
    if name.endswith("scale_shift_table") or name == "head.2.weight":
        return 0.5
    if len(shape) != 2:
        return 0.2
    damped = name.endswith(("out_proj.weight", "mlp.0.weight", "mlp.2.weight"))
    return (0.6 if damped else 1.0) / float(np.sqrt(shape[-1]))


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """name -> fp32 array, not to be written: each tensor is a window of its own of one noise.

    Windows may overlap but begin elsewhere, so no two tensors are equal. Drawing and keeping
    606 million numbers would cost more time and memory than all that is computed with them.
    """
    rng = np.random.default_rng(seed)
    length = 2 * max(int(np.prod(shape)) for shape in shapes.values())
    noise = rng.random(length, dtype=np.float32)
    noise = (2 * noise - 1 + np.float32(2**-26)) * np.float32(np.sqrt(3))  # even, variance 1, no 0
    scaled: dict[float, NDArray[np.float32]] = {}
    state = {}
    for name, shape in shapes.items():
        spread, count = _spread(name, shape), int(np.prod(shape))
        if spread not in scaled:
            scaled[spread] = noise * np.float32(spread)
        start = int(rng.integers(length - count))
        state[name] = scaled[spread][start : start + count].reshape(shape)
    return state


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def filled(module: nn.Module, state: Mapping[str, NDArray[np.float32]]) -> nn.Module:
    """A module made on the meta device, with these arrays as its weights (shared, not copied)."""
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def empty_expert(config: ExpertConfig, norm_eps: float = 1e-6) -> Expert:
    """An expert without weights."""
    with torch.device("meta"):
        return Expert(config, norm_eps)


def empty_router(config: RouterConfig, settings: Settings | None = None) -> Router:
    """A router without weights."""
    with torch.device("meta"):
        return Router(config, settings)
