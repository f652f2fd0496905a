"""Which experts an image asks, and how their velocities become one. Pure.

Called by the requesting half of a family for every image and step. The sum is taken in expert
order in fp32, so it does not depend on whose answer came first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """The experts one image asks at one step, largest weight first, and by how much it was close.

    `margin` is the router probability between the last chosen and the first left out; with every
    expert chosen it is 1.0, since nothing can tip.
    """

    experts: tuple[int, ...]
    weights: tuple[float, ...]
    margin: float


def choose(logits: Tensor, top_k: int | None) -> Choice:
    """Router logits (K,) -> the `top_k` most probable experts, weights renormalised to sum 1.

    `top_k` None asks every expert with the router's own probabilities. Ties go to the lower
    expert number (stable sort), so every platform picks the same.
    """
    p = torch.softmax(logits.float(), dim=0)
    ordered, index = torch.sort(p, descending=True, stable=True)
    count = p.numel() if top_k is None else top_k
    if not 1 <= count <= p.numel():
        raise ValueError(f"got top_k={top_k} but expected 1..{p.numel()}")
    kept = ordered[:count]
    weights = kept / kept.sum() if top_k is not None else kept
    margin = float(ordered[count - 1] - ordered[count]) if count < p.numel() else 1.0
    return Choice(tuple(index[:count].tolist()), tuple(weights.tolist()), margin)


def mix(velocities: Mapping[int, Tensor], choice: Choice) -> Tensor:
    """Weighted sum of the chosen experts' velocities (C, S, S), fp32, in expert order."""
    weight_of = dict(zip(choice.experts, choice.weights, strict=True))
    if velocities.keys() != weight_of.keys():
        raise ValueError(f"got experts {sorted(velocities)} but expected {sorted(weight_of)}")
    total: Tensor | None = None
    for expert in sorted(weight_of):
        part = weight_of[expert] * velocities[expert].float()
        total = part if total is None else total + part
    assert total is not None  # choose() never returns an empty choice
    return total
