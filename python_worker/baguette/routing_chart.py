"""The router's choices as text: a box of usage bars and a box with one column per step.

Called by the demo and by `generate --visualize`; pure, lists of lines out. `routing_figure` draws
the same as a picture. The look is the Baguette
card's. Colour is the caller's decision (a terminal), width too; characters that terminals draw two
columns wide are counted as two.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from baguette.text import cells

Steps = Sequence[Sequence[int]]  # per step the experts asked, largest weight first

EIGHTHS = " ▏▎▍▌▋▊▉"
FIRST, OTHER, NONE = "●", "○", "·"
COLOURS = (36, 33, 35, 32, 34, 31, 96, 93)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
LABEL_EVERY = 5
MIN_WIDTH = 40


def count_calls(images: Sequence[Steps]) -> Counter[int]:
    """Expert -> how often it was asked, over all images and steps."""
    return Counter(expert for steps in images for experts in steps for expert in experts)


def most_asked_first(calls: Counter[int], num_experts: int) -> list[int]:
    """Every expert; where two were asked equally often, in their order."""
    return sorted(range(num_experts), key=lambda e: (-calls[e], e))


def usage_footer(calls: Counter[int], num_experts: int) -> str:
    """How many experts took part; calls are images x steps x K."""
    return f"Active: {len(+calls)}/{num_experts} experts, Calls: {calls.total()}"


def usage_chart(
    images: Sequence[Steps], num_experts: int, width: int = 52, colour: bool = False
) -> list[str]:
    """How often each expert was asked over all images and steps, most asked first."""
    calls = count_calls(images)
    total = max(calls.total(), 1)
    inner = max(width, MIN_WIDTH) - 4
    name_width = len(f"E{num_experts - 1}")
    bar_width = inner - name_width - 12
    order = most_asked_first(calls, num_experts)
    most = max(calls[order[0]], 1)
    rows = []
    for place, expert in enumerate(order):
        arrow = "→" if place == 0 and calls[expert] else " "
        bar = _paint(_bar(calls[expert] / most, bar_width), expert, colour)
        name = f"E{expert}".ljust(name_width)
        rows.append(f"{arrow} {name} │{bar}│ {100 * calls[expert] / total:5.1f}%")
    footer = usage_footer(calls, num_experts)
    return _box("⚡ EXPERT USAGE DISTRIBUTION", rows, footer, inner)


def timeline_chart(
    steps: Steps, num_experts: int, width: int = 80, colour: bool = False
) -> list[str]:
    """One image's way: a row per expert, a column per step, in blocks that fit the width."""
    inner = max(width, MIN_WIDTH) - 4
    label_width = max(len(f"E{num_experts - 1}"), len("Step")) + 1
    cell = len(str(max(len(steps) - 1, 0))) + 1
    every = 1
    if label_width + cell * len(steps) > inner:
        cell, every = 2, LABEL_EVERY
    columns = max((inner - label_width) // cell, 1)
    columns = columns if every == 1 else max(columns // every * every, every)
    rows: list[str] = []
    for start in range(0, max(len(steps), 1), columns):
        block = range(start, min(start + columns, len(steps)))
        rows += [""] if rows else []
        rows.append("Step".ljust(label_width) + _labels(block, cell, every))
        rows.append("─" * (label_width + cell * len(block)))
        rows += [
            f"E{e}".ljust(label_width) + "".join(_mark(steps[i], e, colour, cell) for i in block)
            for e in range(num_experts)
        ]
    used = max((_width(row.rstrip()) for row in rows), default=0)
    title = "📈 ROUTING TIMELINE"
    footer = changes_footer(steps)
    return _box(title, rows, footer, min(inner, max(used, MIN_WIDTH - 4, len(footer))))


def changes_footer(steps: Steps) -> str:
    """How often the first expert was another than at the step before."""
    firsts = [experts[0] for experts in steps if experts]
    turns = max(len(firsts) - 1, 0)
    changes = sum(a != b for a, b in itertools.pairwise(firsts))
    return f"Routing changes: {changes}/{turns} steps ({100 * changes / max(turns, 1):.0f}%)"


def _labels(block: range, cell: int, every: int) -> str:
    line = ""
    for place, step in enumerate(block):
        if step % every == 0:
            line = line.ljust(place * cell) + str(step)
    return line.ljust(len(block) * cell)


def _mark(experts: Sequence[int], expert: int, colour: bool, cell: int) -> str:
    if expert not in experts:
        return NONE.ljust(cell)
    mark = FIRST if experts[0] == expert else OTHER
    return _paint(mark, expert, colour) + " " * (cell - 1)


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def _paint(text: str, expert: int, colour: bool) -> str:
    return f"\x1b[{COLOURS[expert % len(COLOURS)]}m{text}\x1b[0m" if colour else text


def _width(text: str) -> int:
    """Terminal columns of a line, colour codes not counted."""
    return cells(ESCAPES.sub("", text))


def _box(title: str, rows: list[str], footer: str, inner: int) -> list[str]:
    rule = "─" * (inner + 2)
    lines = [f"╭{rule}╮", _line(title, inner), f"├{rule}┤"]
    lines += [_line(row, inner) for row in rows]
    return [*lines, f"├{rule}┤", _line(footer, inner), f"╰{rule}╯"]


def _line(text: str, inner: int) -> str:
    text = text if _width(text) <= inner else text.rstrip()
    return f"│ {text}{' ' * max(inner - _width(text), 0)} │"
