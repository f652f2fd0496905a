"""A routing that was recorded, imposed on the single-process pipeline. Pure; called by it.

Top-k is discrete: where experts were called in other shapes, a difference of 1e-7 may choose
another expert and so another picture. With the recorded experts and weights imposed, what is left
to compare is arithmetic, and a tolerance means something (docs/internals/numerics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from baguette.errors import BadInput
from baguette.mixture import Choice
from baguette.request import GenerationRequest

Routing = list[list[Choice]]  # by image, by step


def recorded(routing: Any, request: GenerationRequest, num_experts: int) -> Routing:
    """The `routing` of a result, as JSON or as a Generation has it, checked against its request."""
    images = _list("routing", routing, request.n, "images")
    return [
        [
            _choice(f"routing of image {i} at step {step}", line, num_experts)
            for step, line in enumerate(
                _list(f"routing of image {i}", image, request.steps, "steps")
            )
        ]
        for i, image in enumerate(images)
    ]


def _list(name: str, value: Any, length: int, of: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise BadInput(f"{name} got {type(value).__name__} but expected a list of {length} {of}")
    if len(value) != length:
        raise BadInput(f"{name} has {len(value)} {of} but the request has {length}")
    return value


def _choice(name: str, line: Any, num_experts: int) -> Choice:
    if isinstance(line, Choice):
        line = vars(line)
    if not isinstance(line, Mapping) or not {"experts", "weights", "margin"} <= line.keys():
        raise BadInput(f"{name} is not a map of experts, weights and margin")
    experts, weights, margin = line["experts"], line["weights"], line["margin"]
    if not isinstance(experts, list | tuple) or not isinstance(weights, list | tuple):
        raise BadInput(f"{name} has experts or weights that are no list")
    if not isinstance(margin, float | int):
        raise BadInput(f"{name} has the margin {margin!r} but expected a number")
    experts, weights = tuple(experts), tuple(weights)
    known = all(isinstance(e, int) and 0 <= e < num_experts for e in experts)
    if not known or not experts or len(set(experts)) != len(experts):
        raise BadInput(
            f"{name} names experts {list(experts)} but expected different ones of "
            f"0..{num_experts - 1}"
        )
    if len(weights) != len(experts):
        raise BadInput(f"{name} has {len(weights)} weights for {len(experts)} experts")
    if not all(isinstance(w, float | int) and math.isfinite(w) and 0 <= w <= 1 for w in weights):
        raise BadInput(f"{name} has weights {list(weights)} but expected 0..1")
    return Choice(experts, weights, float(margin))
