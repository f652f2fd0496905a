"""The first latent of an image. Called once per image by the families' requesting half."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def initial_noise(seed: int, latent_shape: Sequence[int]) -> Tensor:
    """Noise of one image, (C, S, S) float32, from torch's CPU generator whatever the device.

    Image i of a request passes seed + i, so an image is the same alone and in company.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn((1, *latent_shape), generator=generator, dtype=torch.float32)[0]
