"""Latents to pictures: AutoencoderKL of `diffusers`.

Called by `requester.py`. Imports diffusers, so expert workers never load it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from baguette.device import Numbers
from baguette.families.paris.files import part_folder
from baguette.image import to_pixels
from baguette.weights import complete, readable


class LatentDecoder:
    """Latents (N, C, S, S) fp32 -> N pixels uint8 (H, W, 3) on the CPU."""

    def __init__(self, model_dir: Path, numbers: Numbers) -> None:
        folder = part_folder(model_dir, "vae")
        with readable(folder):
            vae, info = AutoencoderKL.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                torch_dtype=numbers.compute,
            )
        complete(folder, info)
        self.vae = vae.eval().to(numbers.device)

    def layers(self) -> list[nn.Module]:
        """What decoding computes one after another, as far as it takes time."""
        return [one for one in self.vae.decoder.modules() if isinstance(one, nn.Conv2d)]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> list[Tensor]:
        """Decode latents / scaling_factor as one batch; one alone is the canonical call.

        Convolutions differ between batch sizes.
        """
        scaled = latents.to(self.vae.device, self.vae.dtype) / self.vae.config.scaling_factor
        return [to_pixels(image).cpu() for image in self.vae.decode(scaled).sample]
