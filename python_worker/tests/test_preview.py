"""Previews: what is shown of a picture while it is drawn must be that picture, roughly."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy
import pytest
import torch
from torch.nn import functional

import baguette
from baguette.families.paris.preview import PICTURES, LatentPreview
from baguette.families.paris.requester import Requester
from baguette.mixture import Choice

MINI = Path(__file__).resolve().parents[2] / "weights" / "paris-mini"
# Seen of sixteen pictures: 0.66 to 0.84, 0.73 in the mean; a map fitted to the pictures themselves
# gives 0.79.
LEAST, LEAST_MEAN = 0.5, 0.65
PROMPTS = (
    "a red circle on a blue background",
    "a green star on a white background",
    "a yellow square on a black background",
    "a white circle on a red background",
)


@pytest.fixture(scope="module")
def mini() -> baguette.Pipeline:
    pipeline = baguette.load(MINI)
    for _ in range(PICTURES):
        pipeline.requester.look.prepare()
    return pipeline


def likeness(preview: torch.Tensor, pixels: torch.Tensor) -> float:
    """Correlation of a preview with the picture at its size, both (H, W, 3)."""
    small = functional.adaptive_avg_pool2d(pixels.permute(2, 0, 1).float(), preview.shape[0])
    both = preview.permute(2, 0, 1).float().flatten(), small.flatten()
    return float(numpy.corrcoef(*both)[0, 1])


def late_preview(pipeline: baguette.Pipeline, prompt: str, seed: int) -> float:
    """How much the preview after 4 in 5 steps is like the picture."""
    requester, steps, scale = pipeline.requester, 10, 2.0
    request = pipeline.request(prompt, seed=seed, steps=steps, guidance_scale=scale)
    prompts = requester.prompts(request)
    times, latent = requester.times(steps), requester.start(seed)
    seen = latent
    for step, (t, t_next) in enumerate(itertools.pairwise(times)):
        choice = requester.route(latent, t, 2)
        row = requester.row(latent, t, prompts, scale)
        velocities = {}
        for number in choice.experts:
            expert = pipeline.ensemble.experts[number]
            expert.learn_missing([row], prompts)
            velocities[number] = expert.velocity([row])[0]
        if step == steps * 4 // 5:
            seen = requester.preview(latent, velocities, choice, t)
        latent = requester.advance(latent, velocities, choice, t, t_next)
    return likeness(seen, requester.decode(latent))


def test_a_late_preview_is_recognisably_the_picture(mini: baguette.Pipeline) -> None:
    found = [late_preview(mini, prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    assert min(found) > LEAST, found
    assert sum(found) / len(found) > LEAST_MEAN, found


def test_a_picture_is_like_its_own_preview_and_less_like_anothers(mini: baguette.Pipeline) -> None:
    drawn = [mini(mini.request(prompt, seed=7, steps=10)) for prompt in PROMPTS]
    shown = [mini.requester.look(one.latents[0]) for one in drawn]
    for own, preview in enumerate(shown):
        alike = [likeness(preview, one.pixels[0]) for one in drawn]
        assert alike.index(max(alike)) == own, alike


def test_a_preview_takes_far_less_than_the_picture(mini: baguette.Pipeline) -> None:
    latent = mini.requester.start(0)

    def least(call: object) -> float:
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            call(latent)  # type: ignore[operator]
            times.append(time.perf_counter() - begun)
        return min(times)

    assert least(mini.requester.look) * 3 < least(mini.requester.decode)


def test_the_preview_assumes_that_the_velocity_stays(tiny_dir: Path) -> None:
    requester = Requester(tiny_dir)
    for _ in range(PICTURES):
        requester.look.prepare()
    end, noise, t = requester.start(1), requester.start(2), 0.7
    choice = Choice((0,), (1.0,), 1.0)
    on_the_way = (1 - t) * end + t * noise
    shown = requester.preview(on_the_way, {0: noise - end}, choice, t)
    difference = shown.int() - requester.look(end).int()
    assert int(difference.abs().max()) <= 1
    size = end.shape[-1] * requester.look.enlarged
    assert shown.shape == (size, size, 3)


def test_the_same_map_is_found_again_and_no_other_generator_is_drawn_on(tiny_dir: Path) -> None:
    before = torch.random.get_rng_state()
    maps = []
    for _ in range(2):
        look = LatentPreview(Requester(tiny_dir).decoder.vae)
        told = [look.prepare() for _ in range(PICTURES)]
        assert told == [False] * (PICTURES - 1) + [True]
        maps.append(look(torch.ones(3, 6, 6)))
    assert torch.equal(*maps)
    assert torch.equal(before, torch.random.get_rng_state())
