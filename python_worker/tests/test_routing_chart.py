"""The charts are read by people, so they are compared as whole pictures."""

from __future__ import annotations

import io
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from baguette.routing_chart import _width, timeline_chart, usage_chart
from baguette.routing_figure import COLOURS, routing_figure

CARD_STEPS = [[6, 4]] * 2 + [[4, 2]] * 3 + [[2, 4]] * 9

USAGE = """
╭──────────────────────────────────────────────────╮
│ ⚡ EXPERT USAGE DISTRIBUTION                     │
├──────────────────────────────────────────────────┤
│ → E4 │██████████████████████████████████│  50.0% │
│   E2 │█████████████████████████████▏    │  42.9% │
│   E6 │████▉                             │   7.1% │
│   E0 │                                  │   0.0% │
│   E1 │                                  │   0.0% │
│   E3 │                                  │   0.0% │
│   E5 │                                  │   0.0% │
│   E7 │                                  │   0.0% │
├──────────────────────────────────────────────────┤
│ Active: 3/8 experts, Calls: 28                   │
╰──────────────────────────────────────────────────╯
"""

TIMELINE = """
╭─────────────────────────────────────────────────╮
│ 📈 ROUTING TIMELINE                             │
├─────────────────────────────────────────────────┤
│ Step 0  1  2  3  4  5  6  7  8  9  10 11 12 13  │
│ ─────────────────────────────────────────────── │
│ E0   ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
│ E1   ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
│ E2   ·  ·  ○  ○  ○  ●  ●  ●  ●  ●  ●  ●  ●  ●   │
│ E3   ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
│ E4   ○  ○  ●  ●  ●  ○  ○  ○  ○  ○  ○  ○  ○  ○   │
│ E5   ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
│ E6   ●  ●  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
│ E7   ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·   │
├─────────────────────────────────────────────────┤
│ Routing changes: 2/13 steps (15%)               │
╰─────────────────────────────────────────────────╯
"""

BLOCKS = """
╭──────────────────────────────────────╮
│ 📈 ROUTING TIMELINE                  │
├──────────────────────────────────────┤
│ Step 0         5         10          │
│ ───────────────────────────────────  │
│ E0   ● · ● · ● · ● · ● · ● · ● · ●   │
│ E1   · ● · ● · ● · ● · ● · ● · ● ·   │
│                                      │
│ Step 15        20                    │
│ ─────────────────                    │
│ E0   · ● · ● · ●                     │
│ E1   ● · ● · ● ·                     │
├──────────────────────────────────────┤
│ Routing changes: 20/20 steps (100%)  │
╰──────────────────────────────────────╯
"""


def test_usage_is_drawn_as_on_the_card() -> None:
    assert "\n".join(usage_chart([CARD_STEPS], 8)) == USAGE.strip()


def test_timeline_is_drawn_as_on_the_card() -> None:
    assert "\n".join(timeline_chart(CARD_STEPS, 8)) == TIMELINE.strip()


def test_many_steps_go_into_blocks_of_columns() -> None:
    steps = [[i % 2] for i in range(21)]
    assert "\n".join(timeline_chart(steps, 2, width=40)) == BLOCKS.strip()


def test_colour_adds_nothing_but_colour() -> None:
    plain = timeline_chart(CARD_STEPS, 8) + usage_chart([CARD_STEPS], 8)
    colourful = timeline_chart(CARD_STEPS, 8, colour=True) + usage_chart(
        [CARD_STEPS], 8, colour=True
    )
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in colourful] == plain
    assert colourful != plain


def test_nothing_asked_is_no_error() -> None:
    assert "Calls: 0" in "\n".join(usage_chart([], 3))
    assert "0/0 steps" in "\n".join(timeline_chart([], 3))


def colours(picture: bytes) -> dict[str, int]:
    """How many pixels have exactly an expert's colour."""
    image = Image.open(io.BytesIO(picture))
    found = Counter("#{:02x}{:02x}{:02x}".format(*pixel) for pixel in image.get_flattened_data())
    return {colour: found[colour] for colour in COLOURS}


def test_the_figure_shows_every_expert_as_much_as_it_was_asked() -> None:
    seen = colours(routing_figure([CARD_STEPS], 0, 8, "a model"))
    asked = [COLOURS[expert] for expert in (4, 2, 6)]
    assert [colour for colour, pixels in seen.items() if pixels == 0] == [
        colour for colour in COLOURS if colour not in asked
    ]
    assert seen[asked[0]] > seen[asked[1]] > seen[asked[2]]


def test_the_figure_shows_the_timeline_of_the_image_asked_for() -> None:
    images = [[[0], [0]], [[1], [1]]]
    first, second = (colours(routing_figure(images, i, 3, "a model")) for i in (0, 1))
    assert first[COLOURS[0]] > second[COLOURS[0]] > 0
    assert second[COLOURS[1]] > first[COLOURS[1]] > 0


def test_a_figure_of_many_steps_stays_below_two_thousand_pixels() -> None:
    whole = routing_figure([[[i % 12] for i in range(100)]], 0, 12, "a model")
    assert Image.open(io.BytesIO(whole)).width < 2000


@given(
    steps=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True), max_size=250),
    width=st.integers(40, 120),
)
def test_every_line_has_the_same_width_and_fits(steps: list[list[int]], width: int) -> None:
    for lines in (timeline_chart(steps, 12, width), usage_chart([steps], 12, width)):
        assert len({_width(line) for line in lines}) == 1
        assert _width(lines[0]) <= width
    marks = "".join(timeline_chart(steps, 12, width))
    assert marks.count("●") == len(steps)
    assert marks.count("○") == sum(len(experts) - 1 for experts in steps)
