"""Several pictures as one. PNG in, PNG out, without torch: the launcher calls this too."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

from PIL import Image

from baguette.png import encode


def sheet(
    pngs: Sequence[bytes], columns: int | None = None, text: Mapping[str, str] | None = None
) -> bytes:
    """Pictures of one size on one sheet, row by row, white where empty; near-square by default."""
    pictures = [Image.open(io.BytesIO(png)) for png in pngs]
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    whole = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % columns * width, i // columns * height))
    return encode(whole, text)
