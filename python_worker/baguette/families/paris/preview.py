"""What a latent looks like, roughly and at once: a linear map from latents to small pictures.

Called by the pipeline worker between two steps of a picture, so it takes about a millisecond where
decoding takes many. Each latent pixel and its eight neighbours give the few pixels in its place
(a linear map of the pixel alone is what ComfyUI and others draw; the neighbours give edges). The
map is fitted by ridge regression to the model's own VAE: pictures of coloured blocks, encoded.
What dies with it: nothing that is not fitted again. It draws on no generator but its own.

Symbols: C latent channels, S latent size, F features of a latent pixel, E times enlarged.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

SEED = 0
PICTURES = 32
BLOCKS = 3  # a side; not a divisor of the latent size, so that edges lie everywhere
LATENT_SIZE = 8
MOST_ENLARGED = 4
NEIGHBOURS = 3  # a side
RIDGE = 1e-3


class LatentPreview:
    """Latent (C, S, S) fp32 -> pixels uint8 (E S, E S, 3), once `prepare` has said that it can."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self._vae = vae
        self._pixels = 2 ** (len(vae.config.block_out_channels) - 1)  # of a latent pixel, a side
        self.enlarged = min(MOST_ENLARGED, self._pixels)
        self._generator = torch.Generator().manual_seed(SEED)
        self._seen = 0
        features = vae.config.latent_channels * NEIGHBOURS**2 + 1
        self._gram = torch.zeros(features, features, dtype=torch.float64)  # (F, F)
        self._cross = torch.zeros(features, 3 * self.enlarged**2, dtype=torch.float64)
        self._map: Tensor | None = None

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Look at one more picture, which is short; True when the map is there."""
        if self._map is None:
            self._look(self._blocks())
            self._seen += 1
            if self._seen == PICTURES:
                ridge = RIDGE * self._gram[-1, -1] * torch.eye(len(self._gram)).double()
                self._map = torch.linalg.solve(self._gram + ridge, self._cross).float()
        return self._map is not None

    def _blocks(self) -> Tensor:
        """A picture (1, 3, H, W) in [0, 1] of blocks in black, white and the six pure colours."""
        colours = torch.rand(1, 3, BLOCKS, BLOCKS, generator=self._generator).round()
        return functional.interpolate(colours, size=LATENT_SIZE * self._pixels, mode="nearest")

    def _look(self, picture: Tensor) -> None:
        vae = self._vae
        encoded = vae.encode((2 * picture - 1).to(vae.device, vae.dtype)).latent_dist.mean
        latent = encoded.float().cpu() * vae.config.scaling_factor
        small = functional.adaptive_avg_pool2d(picture, LATENT_SIZE * self.enlarged)
        wanted = functional.unfold(small, self.enlarged, stride=self.enlarged)[0].T  # (S S, 3 E E)
        features = _features(latent).double()  # (S S, F)
        self._gram += features.T @ features
        self._cross += features.T @ wanted.double()

    @torch.inference_mode()
    def __call__(self, latent: Tensor) -> Tensor:
        """What this latent looks like."""
        assert self._map is not None, "prepare() has not said that the map is there"
        small = (_features(latent[None]) @ self._map).T[None]  # (1, 3 E E, S S)
        size = latent.shape[-1] * self.enlarged
        unit = functional.fold(small, size, self.enlarged, stride=self.enlarged)[0].clamp(0, 1)
        return (unit * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()


def _features(latents: Tensor) -> Tensor:
    """Latents (1, C, S, S) -> each pixel with its neighbours, and a one: (S S, F)."""
    margin = NEIGHBOURS // 2
    padded = functional.pad(latents, (margin,) * 4, mode="replicate")
    around = functional.unfold(padded, NEIGHBOURS)[0].T
    return torch.cat([around, torch.ones(len(around), 1)], dim=1)
