"""Several pictures as one. PNG in, PNG out, without torch: the launcher calls this too."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image


def sheet(pngs: Sequence[bytes]) -> bytes:
    """Pictures of one size on one near-square sheet, row by row, white where empty."""
    pictures = [Image.open(io.BytesIO(png)) for png in pngs]
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    whole = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % columns * width, i // columns * height))
    buffer = io.BytesIO()
    whole.save(buffer, format="PNG")
    return buffer.getvalue()
