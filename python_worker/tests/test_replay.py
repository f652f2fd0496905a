"""A recorded routing imposed on the pipeline: the same picture again, or another one's experts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import baguette
from baguette.errors import BadInput
from baguette.pipeline import Generation

STEPS = 5


@pytest.fixture(scope="module")
def pipeline(tiny_dir: Path) -> baguette.Pipeline:
    return baguette.load(tiny_dir)


@pytest.fixture(scope="module")
def drawn(pipeline: baguette.Pipeline) -> Generation:
    return pipeline(pipeline.request("a cat", n=2, seed=9, steps=STEPS))


@pytest.fixture
def routing(drawn: Generation) -> Any:
    return copy.deepcopy(drawn.to_json()["routing"])


def test_its_own_routing_gives_the_same_bytes_without_asking_the_router(
    pipeline: baguette.Pipeline, drawn: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the router was asked")

    monkeypatch.setattr(pipeline.requester, "route", never)
    for record in (drawn.routing, drawn.to_json()["routing"]):
        again = pipeline(drawn.request, replay=record)
        assert again.to_json()["images"] == drawn.to_json()["images"]
        assert again.routing == drawn.routing


def test_another_routing_is_obeyed(
    pipeline: baguette.Pipeline, drawn: Generation, routing: Any
) -> None:
    routing[1][2] = {"experts": [0], "weights": [1.0], "margin": 0.5}
    again = pipeline(drawn.request, replay=routing)
    assert torch.equal(again.latents[0], drawn.latents[0])
    assert not torch.equal(again.latents[1], drawn.latents[1])
    assert (again.routing[1][2].experts, again.routing[1][2].margin) == ((0,), 0.5)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({"experts": [3], "weights": [1.0], "margin": 1.0}, r"experts \[3\] .* 0\.\.2"),
        ({"experts": [1, 1], "weights": [0.5, 0.5], "margin": 1.0}, "different ones"),
        ({"experts": [], "weights": [], "margin": 1.0}, "different ones"),
        ({"experts": [[0]], "weights": [1.0], "margin": 1.0}, "different ones"),
        ({"experts": [0], "weights": ["1"], "margin": 1.0}, r"expected 0\.\.1"),
        ({"experts": [0, 1], "weights": [1.0], "margin": 1.0}, "1 weights for 2 experts"),
        ({"experts": [0], "weights": [float("nan")], "margin": 1.0}, r"expected 0\.\.1"),
        ({"experts": [0], "weights": [-0.5], "margin": 1.0}, r"expected 0\.\.1"),
        ({"experts": [0], "weights": [1.0]}, "not a map of experts, weights and margin"),
    ],
)
def test_a_bad_line_is_named_by_image_and_step(
    pipeline: baguette.Pipeline, drawn: Generation, routing: Any, line: Any, named: str
) -> None:
    routing[1][3] = line
    with pytest.raises(BadInput, match=f"routing of image 1 at step 3 .*{named}"):
        pipeline(drawn.request, replay=routing)


def test_a_routing_of_another_size_is_refused(
    pipeline: baguette.Pipeline, drawn: Generation, routing: Any
) -> None:
    with pytest.raises(BadInput, match="routing has 1 images but the request has 2"):
        pipeline(drawn.request, replay=routing[:1])
    with pytest.raises(BadInput, match="routing of image 1 has 4 steps but the request has 5"):
        pipeline(drawn.request, replay=[routing[0], routing[1][:4]])
    with pytest.raises(BadInput, match="routing got str"):
        pipeline(drawn.request, replay="ab")
