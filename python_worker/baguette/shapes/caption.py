"""What is said of a picture: shape and both colours in several phrasings, never position or size.

Also the vocabulary that paris-mini declares. Used by the training recipe, its evaluation and tests.
"""

from __future__ import annotations

from typing import Final

from baguette.shapes.draw import COLOURS, COMBINATIONS, SHAPES

PHRASINGS: Final = (
    "a {colour} {shape} on a {background} background",
    "{background} background with a {colour} {shape}",
    "a {colour} {shape} on {background}",
    "a {shape} in {colour} on a {background} background",
    "{colour} {shape}, {background} background",
    "a {background} background with a {colour} {shape} on it",
)
# Leaves the background open; rare in training, never in the evaluation.
SHAPE_ONLY: Final = "a {colour} {shape}"
VOCABULARY: Final = tuple(
    sorted(
        {*SHAPES, *COLOURS, "a", "an", "the", "on", "in", "with", "it", "and", "background", "of"}
    )
)


def caption(combination: int, phrasing: int) -> str:
    """The caption of COMBINATIONS[combination]; phrasing len(PHRASINGS) names the shape only."""
    shape, colour, background = COMBINATIONS[combination]
    pattern = (*PHRASINGS, SHAPE_ONLY)[phrasing]
    return pattern.format(
        shape=SHAPES[shape], colour=COLOURS[colour], background=COLOURS[background]
    )
