"""The router's choices as a picture: usage bars above, one image's timeline below.

Called by `generate --visualize FILE.png`; pure, PNG bytes out. Shows what `routing_chart` prints,
with the same order, footers and meaning of a filled and an open circle. Pillow alone draws it:
everything at SCALE times the size and then reduced, which is what smooths the circles.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from baguette.png import encode
from baguette.routing_chart import (
    Steps,
    changes_footer,
    count_calls,
    most_asked_first,
    usage_footer,
)

SCALE = 3
MARGIN, GAP, ROW, HEAD, FOOT = 28, 24, 30, 52, 48
TITLE, TEXT, SMALL = 19, 15, 13
MIN_WIDTH, NAME, PERCENT = 640, 52, 64  # of a panel's inside; of its first and last column
CELL, MIN_CELL, TIMELINE_WIDTH = 30, 12, 1500
BACKGROUND, PANEL, RULE, TRACK = "#f1f3f6", "#ffffff", "#d9dde3", "#eef1f4"
INK, FAINT = "#1f2933", "#5f6b7a"
# Apart from each other and from white, also for most who see colours differently.
COLOURS = (
    "#0b7a75", "#d9822b", "#8e4585", "#2f9e44", "#2563c9", "#c92a3a", "#0ea5c6", "#8a6d00",
)  # fmt: skip


def routing_figure(images: Sequence[Steps], image: int, num_experts: int, about: str) -> bytes:
    """PNG of the usage over all images and the timeline of one; `about` is the line above."""
    steps = images[image]
    cell = max(min(CELL, TIMELINE_WIDTH // max(len(steps), 1)), MIN_CELL)
    inside = max(MIN_WIDTH, NAME + cell * len(steps))
    usage = HEAD + ROW * num_experts + FOOT
    timeline = usage + ROW  # a row of step numbers more
    width, top = inside + 4 * MARGIN, 2 * GAP + SMALL
    height = top + usage + GAP + timeline + MARGIN
    canvas = Image.new("RGB", (width * SCALE, height * SCALE), BACKGROUND)
    pen = Pen(ImageDraw.Draw(canvas))
    pen.text(MARGIN, GAP + SMALL / 2, about, SMALL, FAINT)
    pen.panel(MARGIN, top, width - 2 * MARGIN, usage)
    _usage(pen, 2 * MARGIN, top, inside, images, num_experts)
    pen.panel(MARGIN, top + usage + GAP, width - 2 * MARGIN, timeline)
    _timeline(pen, 2 * MARGIN, top + usage + GAP, cell, steps, num_experts)
    return encode(canvas.resize((width, height), Image.Resampling.LANCZOS))


class Pen:
    """Draws in the figure's own units; texts are placed by the middle of their height."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def panel(self, x: float, y: float, width: float, height: float) -> None:
        """A white sheet with a thin edge."""
        self.box(x, y, width, height, PANEL, 10, RULE)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, radius: float = 0,
        edge: str | None = None,
    ) -> None:  # fmt: skip
        """A filled rectangle, its corners rounded."""
        self.draw.rounded_rectangle(
            [v * SCALE for v in (x, y, x + width, y + height)], radius * SCALE, fill, edge, SCALE
        )

    def text(
        self, x: float, y: float, text: str, size: int, colour: str = INK, anchor: str = "lm"
    ) -> None:
        """One line; `anchor` as Pillow's: l, m or r of the width, m of the height."""
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((x * SCALE, y * SCALE), text, fill=colour, font=font, anchor=anchor)

    def dot(self, x: float, y: float, radius: float, colour: str, filled: bool) -> None:
        """A filled or an open circle around (x, y)."""
        bounds = [v * SCALE for v in (x - radius, y - radius, x + radius, y + radius)]
        fill, line = (colour if filled else PANEL), max(round(radius * 0.32 * SCALE), SCALE)
        self.draw.ellipse(bounds, fill, colour, line)


def _usage(
    pen: Pen, left: float, top: float, inside: float, images: Sequence[Steps], num_experts: int
) -> None:
    calls = count_calls(images)
    order = most_asked_first(calls, num_experts)
    most, total = max(calls[order[0]], 1), max(calls.total(), 1)
    pen.text(left, top + HEAD / 2, "Expert usage", TITLE)
    room = inside - NAME - PERCENT
    for place, expert in enumerate(order):
        y = top + HEAD + ROW * (place + 0.5)
        first = place == 0 and calls[expert] > 0
        if first:
            pen.draw.polygon(
                [(v * SCALE, w * SCALE) for v, w in
                 ((left - 14, y - 5), (left - 6, y), (left - 14, y + 5))], _colour(expert),
            )  # fmt: skip
        pen.text(left, y, f"E{expert}", TEXT, INK if calls[expert] else FAINT)
        pen.box(left + NAME, y - 9, room, 18, TRACK, 4)
        if calls[expert]:
            pen.box(left + NAME, y - 9, max(room * calls[expert] / most, 8), 18, _colour(expert), 4)
        share = f"{100 * calls[expert] / total:.1f}%"
        pen.text(left + inside, y, share, TEXT, INK if calls[expert] else FAINT, "rm")
    y = top + HEAD + ROW * num_experts + FOOT / 2
    pen.text(left, y, usage_footer(calls, num_experts), SMALL, FAINT)


def _timeline(
    pen: Pen, left: float, top: float, cell: float, steps: Steps, num_experts: int
) -> None:
    pen.text(left, top + HEAD / 2, "Routing timeline", TITLE)
    columns = [left + NAME + cell * (i + 0.5) for i in range(len(steps))]
    every = 1 if cell >= 24 else 5
    pen.text(left, top + HEAD + ROW / 2, "Step", SMALL, FAINT)
    for i in range(0, len(steps), every):
        pen.text(columns[i], top + HEAD + ROW / 2, str(i), SMALL, FAINT, "mm")
    for expert in range(num_experts):
        y = top + HEAD + ROW * (expert + 1.5)
        used = any(expert in experts for experts in steps)
        pen.text(left, y, f"E{expert}", TEXT, INK if used else FAINT)
        for x, experts in zip(columns, steps, strict=True):
            if expert in experts:
                pen.dot(x, y, min(cell * 0.32, 8), _colour(expert), experts[0] == expert)
            else:
                pen.dot(x, y, 1.2, RULE, True)
    y = top + HEAD + ROW * (num_experts + 1) + FOOT / 2
    pen.text(left, y, changes_footer(steps), SMALL, FAINT)
    legend = columns[-1] + cell / 2 if columns else left
    pen.text(max(legend, left + MIN_WIDTH), y, "filled: first expert, open: others", SMALL, FAINT,
             "rm")  # fmt: skip


def _colour(expert: int) -> str:
    return COLOURS[expert % len(COLOURS)]
