"""The judge: which shape in which colour on which background a picture shows, or that none is.

Purely geometric, no network: every pixel takes its nearest palette colour, the border names the
background, and the mask of the other colour is compared with the silhouette of every shape fitted
to its bounding box. Used by the evaluation of paris-mini and its training gates, by no request.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baguette.shapes.draw import COLOURS, IMAGE_SIZE, PALETTE_RGB, SHAPES, Floats, Ints, coverage

MIN_SHAPE_PIXELS: Final = 60
MAX_STRAY: Final = 0.08  # of all pixels, in a colour that is neither of the two
MIN_OVERLAP: Final = 0.80  # intersection over union with the best silhouette
EDGE: Final = 2  # pixels of border that name the background
# Width and height of a silhouette's bounding box, and its top above the centre, in bounding radii.
_BOXES: Final = {
    "circle": (2.0, 2.0, 1.0),
    "square": (math.sqrt(2), math.sqrt(2), math.sqrt(0.5)),
    "triangle": (math.sqrt(3), 1.5, 1.0),
    "star": (2 * math.sin(math.radians(72)), 1 + math.cos(math.radians(36)), 1.0),
}
_TRIES: Final = np.array(
    list(itertools.product((-0.75, 0.0, 0.75), (-0.75, 0.0, 0.75), (-1.0, 0.0, 1.0))),
    dtype=np.float32,
)


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; `fault` says why nothing can be said, and is empty otherwise."""

    shape: int = -1
    colour: int = -1
    background: int = -1
    overlap: float = 0.0
    fault: str = ""

    @property
    def combination(self) -> tuple[int, int, int]:
        return (self.shape, self.colour, self.background)

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        return f"{COLOURS[self.colour]} {SHAPES[self.shape]} on {COLOURS[self.background]}"


def judge(picture: Floats) -> Verdict:
    """One picture (3, 64, 64), values 0..1."""
    distance = ((picture[:, :, :, None] - PALETTE_RGB.T[:, None, None, :]) ** 2).sum(0)
    nearest = distance.argmin(-1)  # (64, 64)
    background = _most_common(_border(nearest))
    counts = np.bincount(nearest.ravel(), minlength=len(COLOURS))
    counts[background] = 0
    colour = int(counts.argmax())
    if counts[colour] < MIN_SHAPE_PIXELS:
        return Verdict(fault="blank")
    # Between the two colours only, so that an anti-aliased edge goes to the nearer of them.
    mask = distance[:, :, colour] < distance[:, :, background]
    if _stray(nearest, mask, colour, background) > MAX_STRAY * nearest.size:
        return Verdict(fault="other colours")
    shape, overlap = _best_silhouette(mask)
    if overlap < MIN_OVERLAP:
        return Verdict(fault="no shape", overlap=overlap)
    return Verdict(shape, colour, background, overlap)


def _border(nearest: NDArray[np.int64]) -> Ints:
    inner = nearest[EDGE:-EDGE]
    sides = (nearest[:EDGE], nearest[-EDGE:], inner[:, :EDGE], inner[:, -EDGE:])
    return np.concatenate([side.ravel() for side in sides])


def _most_common(values: Ints) -> int:
    return int(np.bincount(values, minlength=len(COLOURS)).argmax())


def _stray(nearest: Ints, mask: NDArray[np.bool_], colour: int, background: int) -> int:
    """Pixels of a third colour away from the outline, where mixed colours belong."""
    rim = np.zeros_like(mask)
    for axis, by in itertools.product((0, 1), (-1, 1)):
        rim |= mask != np.roll(mask, by, axis)
    other = (nearest != colour) & (nearest != background) & ~rim
    return int(other.sum())


def _best_silhouette(mask: NDArray[np.bool_]) -> tuple[int, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = float(rows[0]), float(rows[-1] + 1)
    left, right = float(columns[0]), float(columns[-1] + 1)
    scores = [_overlap(mask, name, top, bottom, left, right) for name in SHAPES]
    best = int(np.argmax(scores))
    return best, scores[best]


def _overlap(
    mask: NDArray[np.bool_], name: str, top: float, bottom: float, left: float, right: float
) -> float:
    """The best intersection over union of the mask with this shape, fitted to the box, nudged."""
    width, height, above = _BOXES[name]
    radius = ((right - left) / width + (bottom - top) / height) / 2
    middle = (top + bottom) / 2 + (above - height / 2) * radius
    fitted = np.array([(left + right) / 2, middle, radius], dtype=np.float32)
    layouts = fitted + _TRIES
    layouts[:, 2] = np.maximum(layouts[:, 2], 2.0)
    drawn = coverage(name, layouts, IMAGE_SIZE) > 0.5  # (tries, 64, 64)
    both = (drawn & mask).sum((1, 2))
    either = (drawn | mask).sum((1, 2))
    return float((both / either).max())
