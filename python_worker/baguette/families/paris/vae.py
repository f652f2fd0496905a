"""Latents to pictures: AutoencoderKL of `diffusers`.

Called by `requester.py`. Imports diffusers, so expert workers never load it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from baguette.families.paris.files import part_folder
from baguette.image import to_pixels
from baguette.weights import complete, readable


class LatentDecoder:
    """latent (C, S, S) fp32 -> pixels uint8 (H, W, 3), one image at a time."""

    def __init__(self, model_dir: Path, dtype: torch.dtype) -> None:
        folder = part_folder(model_dir, "vae")
        with readable(folder):
            vae, info = AutoencoderKL.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                torch_dtype=dtype,
            )
        complete(folder, info)
        self.vae = vae.eval()

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Decode latent / scaling_factor; one a call: convolutions differ between batch sizes."""
        scaled = latent[None].to(self.vae.dtype) / self.vae.config.scaling_factor
        return to_pixels(self.vae.decode(scaled).sample[0])
