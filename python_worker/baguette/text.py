"""Words that came from elsewhere, as they may stand on a terminal. Called by whatever prints them.

Prompts and reasons are others' words: an escape in them would move the cursor, a line end would
make a second line of one.
"""

from __future__ import annotations

import unicodedata

LIMIT = 500


def printable(text: object, limit: int = LIMIT) -> str:
    """At most `limit` characters in one line, without anything that a terminal acts on."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def cells(text: str) -> int:
    """Terminal columns of printable text."""
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
        if not unicodedata.combining(char)
    )


def fitted(text: str, width: int) -> str:
    """As much of printable text as fits `width` columns."""
    if cells(text) <= width:
        return text
    end = min(len(text), width)
    while cells(text[:end]) > width:
        end -= 1
    return text[:end]
