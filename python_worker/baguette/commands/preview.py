"""A picture in a terminal: two pixels a character, one above the other. Pure.

Called by `commands.progress` and `remote generate`. Pictures came over a network: they are taken as
PNG only, and not larger than what nodes draw.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Mapping, Sequence

from PIL import Image

HALF = "▀"
MAX_SIDE = 4096
CUBE = 6  # levels a channel, of the 256 colours


class BadPicture(Exception):
    """Bytes that are no PNG, or a larger one than any node draws."""


class Colours(enum.Enum):
    """What a terminal can show."""

    CUBE = 256
    TRUE = 1 << 24


def colours_of(terminal: bool, environment: Mapping[str, str]) -> Colours | None:
    """By the variables terminals set; none where there is no terminal or no colour is wanted."""
    name = environment.get("TERM", "")
    if not terminal or environment.get("NO_COLOR") or name in ("", "dumb"):
        return None
    if environment.get("COLORTERM", "") in ("truecolor", "24bit"):
        return Colours.TRUE
    return Colours.CUBE if "256color" in name else None


def half_blocks(png: bytes, columns: int, colours: Colours) -> list[str]:
    """The picture as lines of `columns` characters, in its own proportions."""
    picture = opened(png)
    rows = max(round(columns * picture.height / picture.width / 2), 1)
    small = picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX)
    pixels = small.tobytes()

    def paint(x: int, y: int) -> str:
        at = 3 * (y * columns + x)
        return _code(pixels[at], pixels[at + 1], pixels[at + 2], colours)

    return [
        "".join(
            f"\x1b[38;{paint(x, 2 * row)};48;{paint(x, 2 * row + 1)}m{HALF}" for x in range(columns)
        )
        + "\x1b[0m"
        for row in range(rows)
    ]


def opened(png: bytes) -> Image.Image:
    """The decoded picture; BadPicture for what is none."""
    try:
        picture = Image.open(io.BytesIO(png), formats=("PNG",))
        if max(picture.size) > MAX_SIDE:
            raise BadPicture(
                f"a picture is {picture.width}x{picture.height}, larger than any drawn"
            )
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadPicture(f"a picture cannot be read ({type(error).__name__})") from None
    return picture


def beside(pictures: Sequence[list[str]]) -> list[str]:
    """Pictures of equal height in a row."""
    return ["".join(lines) for lines in zip(*pictures, strict=False)]


def _code(red: int, green: int, blue: int, colours: Colours) -> str:
    if colours is Colours.TRUE:
        return f"2;{red};{green};{blue}"
    r, g, b = (round(value * (CUBE - 1) / 255) for value in (red, green, blue))
    return f"5;{16 + CUBE * CUBE * r + CUBE * g + b}"
