"""Draws the pictures paris-mini learns from: one shape in one colour on another colour.

Everything is vectorised over a batch and made from an explicit generator, so a training set is a
seed. A shape is named by its index in SHAPES, a colour by its index in COLOURS; a layout is
(centre x, centre y, bounding radius) in pixels. The judge renders its silhouettes with `coverage`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

IMAGE_SIZE: Final = 64
SHAPES: Final = ("circle", "square", "triangle", "star")
LOW: Final = 0.08
HIGH: Final = 0.92
# The corners of the RGB cube, slightly softened: no two are closer than 0.84.
PALETTE: Final = {
    "red": (HIGH, LOW, LOW),
    "green": (LOW, HIGH, LOW),
    "blue": (LOW, LOW, HIGH),
    "yellow": (HIGH, HIGH, LOW),
    "cyan": (LOW, HIGH, HIGH),
    "magenta": (HIGH, LOW, HIGH),
    "white": (HIGH, HIGH, HIGH),
    "black": (LOW, LOW, LOW),
}
COLOURS: Final = tuple(PALETTE)
PALETTE_RGB: Floats = np.array(list(PALETTE.values()), dtype=np.float32)  # (colours, 3)
RADIUS_RANGE: Final = (11.0, 24.0)
MARGIN: Final = 2.0  # pixels of background that always stay around a shape
STAR_INNER: Final = 0.42  # inner radius of the star, in outer radii

# (shape, shape colour, background colour), the background never the shape's own colour
COMBINATIONS: Final = tuple(
    (s, c, b)
    for s, c, b in itertools.product(range(len(SHAPES)), range(len(COLOURS)), range(len(COLOURS)))
    if c != b
)

# A regular figure is n equal sectors; in one sector its edge runs from (radius, angle 0) to
# (inner * radius, angle pi/n). The circle has no corners.
_SECTORS: Final = {"square": 4, "triangle": 3, "star": 5}
_INNER: Final = {"square": math.cos(math.pi / 4), "triangle": 0.5, "star": STAR_INNER}
_TURN: Final = {"square": math.pi / 4, "triangle": 0.0, "star": 0.0}


@dataclass(frozen=True)
class Scene:
    """What a batch of pictures shows; every array has one entry per picture."""

    shape: Ints  # (N,) index into SHAPES
    colour: Ints  # (N,) index into COLOURS
    background: Ints  # (N,) index into COLOURS, never `colour`
    layout: Floats  # (N, 3) centre x, centre y, bounding radius, in pixels

    def __len__(self) -> int:
        return len(self.shape)

    def take(self, index: Ints | slice) -> Scene:
        """The pictures at `index`, in that order."""
        return Scene(
            self.shape[index], self.colour[index], self.background[index], self.layout[index]
        )


def random_layouts(count: int, rng: np.random.Generator) -> Floats:
    """Centres anywhere the bounding circle stays inside the picture, radii uniform: (count, 3)."""
    radius = rng.uniform(*RADIUS_RANGE, size=count)
    reach = IMAGE_SIZE - 2 * (radius + MARGIN)
    centre = (radius + MARGIN)[:, None] + rng.uniform(size=(count, 2)) * reach[:, None]
    return np.concatenate([centre, radius[:, None]], axis=1).astype(np.float32)


def random_scene(count: int, rng: np.random.Generator) -> Scene:
    """`count` scenes: whole shuffled rounds of all combinations, the last round cut short."""
    combos = np.array(COMBINATIONS, dtype=np.int64)
    rounds = -(-count // len(combos))
    index = np.concatenate([rng.permutation(len(combos)) for _ in range(rounds)])[:count]
    shape, colour, background = combos[index].T
    return Scene(shape, colour, background, random_layouts(count, rng))


def signed_distance(shape: str, dx: Floats, dy: Floats, radius: Floats) -> Floats:
    """Distance in pixels to the outline, negative inside (to the edge's line outside corners)."""
    if shape == "circle":
        return np.asarray(np.hypot(dx, dy) - radius, dtype=np.float32)
    sectors, inner = _SECTORS[shape], _INNER[shape]
    half = math.pi / sectors
    angle = np.arctan2(dx, -dy) + _TURN[shape]  # 0 points up
    folded = np.abs(np.mod(angle + half, 2 * half) - half)
    length = np.hypot(dx, dy)
    along, across = length * np.cos(folded), length * np.sin(folded)
    edge_x, edge_y = inner * math.cos(half) - 1.0, inner * math.sin(half)
    norm = math.hypot(edge_x, edge_y)
    distance = ((along - radius) * edge_y - across * edge_x) / norm
    return np.asarray(distance, dtype=np.float32)


def coverage(shape: str, layout: Floats, size: int = IMAGE_SIZE) -> Floats:
    """How much of each pixel the shape covers, anti-aliased over one pixel: (N, size, size)."""
    grid = np.arange(size, dtype=np.float32) + 0.5
    dx = grid[None, None, :] - layout[:, 0, None, None]
    dy = grid[None, :, None] - layout[:, 1, None, None]
    distance = signed_distance(shape, dx, dy, layout[:, 2, None, None])
    return np.asarray(np.clip(0.5 - distance, 0.0, 1.0), dtype=np.float32)


def silhouettes(scene: Scene) -> Floats:
    """The coverage of every picture's own shape: (N, 64, 64)."""
    alpha = np.empty((len(scene), IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for index, name in enumerate(SHAPES):
        mine = scene.shape == index
        alpha[mine] = coverage(name, scene.layout[mine])
    return alpha


def paint(alpha: Floats, colour: Ints, background: Ints) -> Floats:
    """Silhouettes (N, H, W) in their colours: pictures (N, 3, H, W), values 0..1."""
    front = PALETTE_RGB[colour][:, :, None, None]  # (N, 3, 1, 1)
    back = PALETTE_RGB[background][:, :, None, None]
    return np.asarray(back + alpha[:, None] * (front - back), dtype=np.float32)


def draw(scene: Scene) -> Floats:
    """Pictures (N, 3, 64, 64), channels first, values 0..1."""
    return paint(silhouettes(scene), scene.colour, scene.background)


def to_bytes(pictures: Floats) -> NDArray[np.uint8]:
    """Pictures 0..1 as bytes, a quarter of the memory."""
    return np.asarray(np.round(np.clip(pictures, 0, 1) * 255), dtype=np.uint8)
