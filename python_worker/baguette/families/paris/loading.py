"""Paris components from a model directory into this process: strict, in the compute dtype.

Called by the pipeline, the port worker's entry points and the commands. Needs torch only, never
transformers or diffusers. What lies on disk, and the components' keys, are in `files.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from baguette.device import compute_device
from baguette.errors import WeightsError
from baguette.families.paris.config import ExpertConfig, ModelConfig, RouterConfig, read_json
from baguette.families.paris.expert import Expert, PreparedExpert
from baguette.families.paris.files import COMPUTE_DTYPE, expert_file, router_file
from baguette.families.paris.router import PreparedRouter, Router
from baguette.weights import fill

DTYPE: torch.dtype = getattr(torch, COMPUTE_DTYPE)


def load_expert(model_dir: Path, number: int) -> PreparedExpert:
    """Expert `number` on the compute device in the compute dtype, strict about names and shapes."""
    model = ModelConfig.read(model_dir)
    where = model_dir / f"expert_{number}" / "config.json"
    config = ExpertConfig.from_json(read_json(where), str(where), image_size=model.image_size)
    if config.in_channels != model.num_channels or config.image_size != model.image_size:
        raise WeightsError(f"{where} disagrees with the root config about the latent's shape")
    with torch.device("meta"):
        module = Expert(config, model.settings.norm_eps)
    fill(module, expert_file(model_dir, number), DTYPE, compute_device())
    return PreparedExpert(module, model.settings.objective_of(number))


def load_router(model_dir: Path) -> PreparedRouter:
    """The router, strict about names and shapes, in the compute dtype."""
    model = ModelConfig.read(model_dir)
    where = model_dir / "router" / "config.json"
    config = RouterConfig.from_json(read_json(where), str(where), image_size=model.image_size)
    if config.num_clusters != model.num_experts:
        raise WeightsError(
            f"{where}: got num_clusters={config.num_clusters} but expected {model.num_experts}"
        )
    with torch.device("meta"):
        module = Router(config, model.settings)
    fill(module, router_file(model_dir), DTYPE)
    return PreparedRouter(module)
