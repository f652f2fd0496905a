"""Paris components from a model directory into this process: strict, in the compute dtype.

Called by the pipeline, the port worker's entry points and the commands. Needs torch only, never
transformers or diffusers. What lies on disk, and the components' keys, are in `files.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from baguette.device import Numbers, reference
from baguette.families.paris import cost
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.contexts import ContextCache
from baguette.families.paris.expert import Expert, PreparedExpert
from baguette.families.paris.files import (
    expert_config,
    expert_file,
    part_files,
    router_config,
    router_file,
    router_files,
)
from baguette.families.paris.router import PreparedRouter, Router
from baguette.machine import CONTEXTS_MIB
from baguette.room import Sizes
from baguette.weights import fill

_WIDEST = 2


def load_expert(
    model_dir: Path,
    number: int,
    numbers: Numbers | None = None,
    contexts: ContextCache | None = None,
) -> PreparedExpert:
    """Expert `number`, strict about names and shapes; experts of a process share `contexts`.

    Without `numbers` it computes as a cluster's workers do.
    """
    settings = ModelConfig.read(model_dir).settings
    with torch.device("meta"):
        module = Expert(expert_config(model_dir, number), settings.norm_eps)
    fill(module, expert_file(model_dir, number), numbers or reference())
    return PreparedExpert(module, settings.objective_of(number), contexts)


def load_router(model_dir: Path, numbers: Numbers | None = None) -> PreparedRouter:
    """The router, strict about names and shapes; its weights are kept as they compute."""
    numbers = numbers or reference()
    with torch.device("meta"):
        module = Router(router_config(model_dir), ModelConfig.read(model_dir).settings)
    fill(module, router_file(model_dir), replace(numbers, store=numbers.compute))
    return PreparedRouter(module)


def sizes(model_dir: Path, images: int = 16) -> Sizes:
    """What this model needs, for `room`: counted from its configs and files, nothing is read.

    The work of a call is what one block holds at once for so many guided images.
    """
    config, costs = expert_config(model_dir, 0), cost.of_model(model_dir)
    files = [*router_files(model_dir), *part_files(model_dir, "text_encoder", "vae")]
    width = config.hidden_size * (4 + int(config.mlp_ratio))
    return Sizes(
        expert=lambda precision: cost.MATRIX_BYTES[precision] * costs.matrices + 4 * costs.others,
        # Files are bf16 or fp32; fp32 is the most they become.
        rest=_WIDEST * sum(path.stat().st_size for path in files),
        work=4 * 2 * images * config.tokens * width + (CONTEXTS_MIB << 20),
    )
