"""Medians, spreads and percentiles of what was measured several times."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], percent: int) -> float:
    """The least value that so many in a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """The median of several rounds, and the least and the most of them."""
    found = {"median": median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def shown(values: dict[str, float]) -> str:
    """A spread in a table: the median and, where there were several rounds, from what to what."""
    text = f"{values['median']:.3g}"
    if values["least"] == values["most"]:
        return text
    return f"{text} ({values['least']:.3g} to {values['most']:.3g})"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
