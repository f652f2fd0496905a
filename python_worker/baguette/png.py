"""A picture as PNG bytes, with texts. Called by whatever makes pictures; imports no torch.

The texts must hold nothing that changes from run to run, so that equal requests give equal files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo


def encode(picture: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """PNG bytes of `picture`, with one text chunk per item of `text`."""
    info = PngInfo()
    for name, value in (text or {}).items():
        info.add_text(name, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def with_texts(png: bytes, text: Mapping[str, str]) -> bytes:
    """The same pixels with more texts."""
    picture = PngImageFile(io.BytesIO(png))
    picture.load()
    return encode(picture, {**picture.text, **text})
