"""Pixels to PNG, and the identity of a picture. Called by the pipeline and the command lines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from PIL import Image
from torch import Tensor

from baguette.png import encode


def to_pixels(decoded: Tensor) -> Tensor:
    """Decoded picture (3, H, W) in [-1, 1] -> uint8 (H, W, 3): (y/2 + 0.5) clamped to [0, 1]."""
    unit = (decoded.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def tensor_sha256(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes. Of the pixels uint8 (H, W, 3) it is the picture's identity."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def to_png(pixels: Tensor, text: Mapping[str, str] | None = None) -> bytes:
    """uint8 (H, W, 3) -> PNG bytes; `text` must hold nothing that changes from run to run."""
    return encode(Image.fromarray(pixels.numpy(), "RGB"), text)
