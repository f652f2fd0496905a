"""The single-process pipeline: the reference must itself be repeatable and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import baguette
from baguette.errors import BadInput


@pytest.fixture(scope="module")
def pipeline(tiny_dir: Path) -> baguette.Pipeline:
    return baguette.load(tiny_dir)


def test_the_same_request_gives_the_same_bytes(pipeline: baguette.Pipeline) -> None:
    first, second = pipeline(pipeline.request("a cat")), pipeline(pipeline.request("a cat"))
    assert first.to_json()["images"] == second.to_json()["images"]


def test_image_i_is_the_image_of_seed_plus_i_alone(pipeline: baguette.Pipeline) -> None:
    together = pipeline(pipeline.request("a cat", n=3, seed=40))
    alone = pipeline(pipeline.request("a cat", seed=42))
    assert torch.equal(together.pixels[2], alone.pixels[0])
    assert torch.equal(together.latents[2], alone.latents[0])


def test_prompt_and_negative_prompt_change_the_latent(pipeline: baguette.Pipeline) -> None:
    plain = pipeline(pipeline.request("a cat")).latents[0]
    assert not torch.equal(plain, pipeline(pipeline.request("a dog")).latents[0])
    negative = pipeline(pipeline.request("a cat", negative_prompt="a dog")).latents[0]
    assert not torch.equal(plain, negative)


def test_full_asks_every_expert_at_every_step(pipeline: baguette.Pipeline) -> None:
    done = pipeline(pipeline.request("a cat", top_k=None, steps=3))
    assert [sorted(choice.experts) for choice in done.routing[0]] == [[0, 1, 2]] * 3


def test_progress_tells_each_step_before_its_experts_answer(pipeline: baguette.Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipeline(pipeline.request("a cat", steps=4), lambda step, steps, _: seen.append((step, steps)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_k": 4}, r"top_k got 4 but expected 1\.\.3"),
        ({"steps": 0}, "steps got 0"),
        ({"n": 65}, "n got 65"),
        ({"guidance_scale": 0.5}, r"guidance_scale got 0\.5"),
        ({"seed": -1}, "seed got -1"),
        ({"negative_prompt": "x" * 2001}, "negative_prompt has 2001 characters"),
    ],
)
def test_a_bad_option_is_named(
    pipeline: baguette.Pipeline, options: dict[str, object], named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        pipeline(pipeline.request("a cat", **options))


def test_an_empty_prompt_is_refused(pipeline: baguette.Pipeline) -> None:
    with pytest.raises(BadInput, match="prompt is empty"):
        pipeline(pipeline.request("  \n"))
