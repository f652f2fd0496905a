"""Writes a random Paris of the published sizes, so that speed can be measured without a download.

Called by the benchmark's `--random`. The experts are one file under eight names: what they hold
changes no speed, each is loaded on its own, and so 1.6 GB are written instead of 10. What dies with
it: nothing; the directory is its caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging as transformers_logging

from baguette.families.paris.config import ExpertConfig, RouterConfig, published_root
from baguette.families.paris.cost import PUBLISHED_TEXT, PUBLISHED_VAE
from baguette.families.paris.expert import Expert
from baguette.families.paris.files import ROUTER_FILE, expert_file
from baguette.families.paris.router import Router
from baguette.families.paris.tiny import write_json, write_text

# As trained networks have them: not zero, which would cost less power, and never too large.
_SPREAD = 0.02
DISK_BYTES = 2_200_000_000


def build(
    model_dir: Path,
    *,
    expert: ExpertConfig | None = None,
    router: RouterConfig | None = None,
    text: dict[str, int] | None = None,
    vae: dict[str, Any] | None = None,
) -> Path:
    """Write random weights of these sizes in the published layout; what is left out is Paris'."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    expert, router = expert or ExpertConfig(), router or RouterConfig()
    text, vae = text or dict(PUBLISHED_TEXT), vae or dict(PUBLISHED_VAE)
    root = published_root() | {"num_experts": router.num_clusters, "image_size": expert.image_size}
    root |= {"num_channels": expert.in_channels, "baguette": {"name": "random weights"}}
    write_json(model_dir / "config.json", root)
    first = expert_file(model_dir, 0)
    for number in range(router.num_clusters):
        folder = model_dir / f"expert_{number}"
        write_json(folder / "config.json", {**expert.to_json(), "expert_id": number})
        if number:
            expert_file(model_dir, number).symlink_to(first.resolve())
        else:
            _save(Expert, expert, first)
    write_json(model_dir / "router" / "config.json", router.to_json())
    _save(Router, router, model_dir / ROUTER_FILE)
    write_text(model_dir, **text)
    blocks = len(vae["block_out_channels"])
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks, **vae,
    ).save_pretrained(model_dir / "vae")  # fmt: skip
    return model_dir


def _save(network: Callable[[Any], nn.Module], config: Any, path: Path) -> None:
    """In bf16, made tensor by tensor: an expert in fp32 besides would be 2.4 GB more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in network(config).state_dict().items()}
    save_file({n: (_SPREAD * torch.randn(shape)).bfloat16() for n, shape in shapes.items()}, path)
