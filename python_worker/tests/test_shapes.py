"""The world of paris-mini: drawings, their judge, captions and the clusters of layouts."""

from __future__ import annotations

import numpy as np
import pytest

from baguette.shapes import caption, draw, layout
from baguette.shapes.draw import COMBINATIONS, SHAPES, Floats, Scene
from baguette.shapes.judge import judge

RED, BLUE, GREEN = 0, 2, 1


def scene_of(shape: str, colour: int, background: int, *layouts: tuple[int, int, int]) -> Scene:
    """The same shape at several layouts."""
    ones = np.ones(len(layouts), dtype=np.int64)
    index = SHAPES.index(shape) * ones
    return Scene(index, colour * ones, background * ones, np.array(layouts, dtype=np.float32))


def share_right(pictures: Floats, scene: Scene) -> float:
    asked = zip(scene.shape, scene.colour, scene.background, strict=True)
    verdicts = [judge(p).combination == a for p, a in zip(pictures, asked, strict=True)]
    return float(np.mean(verdicts))


def test_the_judge_is_right_about_drawings() -> None:
    scene = draw.random_scene(5 * len(COMBINATIONS), np.random.default_rng(1))
    assert share_right(draw.draw(scene), scene) >= 0.995


def test_the_judge_stands_a_little_noise() -> None:
    rng = np.random.default_rng(2)
    scene = draw.random_scene(len(COMBINATIONS), rng)
    pictures = draw.draw(scene)
    noisy = np.clip(pictures + rng.normal(0, 0.05, pictures.shape), 0, 1).astype(np.float32)
    assert share_right(noisy, scene) >= 0.995


@pytest.mark.parametrize("colour", range(len(draw.COLOURS)))
def test_the_judge_rejects_a_blank(colour: int) -> None:
    blank = np.broadcast_to(draw.PALETTE_RGB[colour][:, None, None], (3, 64, 64))
    assert judge(np.ascontiguousarray(blank)).fault == "blank"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_judge_rejects_two_shapes_of_one_colour(shape: str) -> None:
    pair = scene_of(shape, RED, BLUE, (16, 16, 12), (48, 46, 13))
    alpha = draw.silhouettes(pair).max(0, keepdims=True)
    (picture,) = draw.paint(alpha, pair.colour[:1], pair.background[:1])
    assert judge(picture).fault == "no shape"


def test_the_judge_rejects_two_shapes_of_two_colours() -> None:
    (first,) = draw.draw(scene_of("circle", RED, BLUE, (20, 20, 14)))
    alpha = draw.silhouettes(scene_of("square", GREEN, BLUE, (44, 44, 14)))[0]
    green = draw.PALETTE_RGB[GREEN][:, None, None]
    assert judge((first + alpha * (green - first)).astype(np.float32)).fault == "other colours"


@pytest.mark.parametrize("seed", range(8))
def test_the_judge_rejects_a_blob(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.arctan2(*(np.indices((64, 64)) - 31.5))
    radius = np.hypot(*(np.indices((64, 64)) - 31.5))
    turns = rng.uniform(0, 2 * np.pi, size=2)
    edge = 16 * (1 + 0.38 * np.sin(2 * angle + turns[0]) + 0.38 * np.sin(3 * angle + turns[1]))
    alpha = (radius < edge).astype(np.float32)[None]
    red, blue = np.array([RED]), np.array([BLUE])
    assert judge(draw.paint(alpha, red, blue)[0]).fault == "no shape"


def test_scenes_show_all_combinations_before_any_twice() -> None:
    scene = draw.random_scene(100, np.random.default_rng(3))
    shown = set(zip(scene.shape, scene.colour, scene.background, strict=True))
    assert len(shown) == 100
    assert set(scene.shape) == set(range(len(SHAPES)))


def test_captions_name_the_combination_and_nothing_else() -> None:
    for i, (shape, colour, background) in enumerate(COMBINATIONS):
        for form in range(len(caption.PHRASINGS)):
            words = caption.caption(i, form).replace(",", "").split()
            assert SHAPES[shape] in words
            assert words.count(draw.COLOURS[colour]) == 1
            assert words.count(draw.COLOURS[background]) == 1
            assert set(words) <= set(caption.VOCABULARY)


def test_clusters_are_blind_to_shape_and_colour() -> None:
    rng = np.random.default_rng(4)
    scene = draw.random_scene(100 * len(COMBINATIONS), rng)
    points = layout.standardised(scene.layout)
    label = layout.assign(points, layout.kmeans(points[:5000], 8, rng))
    for k in range(8):
        shares = np.bincount(scene.shape[label == k], minlength=4) / np.sum(label == k)
        assert abs(shares - 0.25).max() < 0.03
    index = {c: i for i, c in enumerate(COMBINATIONS)}
    named = zip(scene.shape.tolist(), scene.colour.tolist(), scene.background.tolist(), strict=True)
    layout.check(label, np.array([index[c] for c in named]), 8)


def test_uneven_clusters_are_refused() -> None:
    label = np.array([0] * 9 + [1] * 3)
    with pytest.raises(ValueError, match="factor of two"):
        layout.check(label, np.zeros(12, dtype=np.int64), 2)


def test_a_cluster_that_lacks_a_combination_is_refused() -> None:
    combination = np.arange(len(COMBINATIONS))
    label = np.concatenate([np.zeros_like(combination), np.ones_like(combination)])
    both = np.concatenate([combination, np.zeros_like(combination)])
    with pytest.raises(ValueError, match="shows 1 of 224"):
        layout.check(label, both, 2)
