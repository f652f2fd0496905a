"""The components of a Paris model directory as files: which are there, what each must hold.

Called by `inspect`, `quantize` and `weights`, which look at files without computing. The networks
themselves say which tensors they have, on torch's meta device: no table of names stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baguette.aliases import CHECKPOINT_FILES
from baguette.families.paris.config import ExpertConfig, ModelConfig, RouterConfig
from baguette.families.paris.files import expert_config, expert_file, router_config, router_file

if TYPE_CHECKING:
    from baguette.weights import Shapes

ROUTER = "router"


@dataclass(frozen=True)
class Component:
    """An expert (by its number) or the router (`number` None), and the file of its tensors."""

    name: str
    number: int | None
    path: Path

    def config(self, model_dir: Path) -> ExpertConfig | RouterConfig:
        """Its sizes; WeightsError where no or a wrong config tells them."""
        if self.number is None:
            return router_config(model_dir, self.path)
        return expert_config(model_dir, self.number, self.path)


def components(model_dir: Path, model: ModelConfig) -> list[Component]:
    """All that a model has, whether or not its files are there: the experts, then the router."""
    experts = [
        Component(f"expert_{number}", number, expert_file(model_dir, number))
        for number in range(model.num_experts)
    ]
    return [*experts, Component(ROUTER, None, router_file(model_dir))]


def convertible(model_dir: Path, model: ModelConfig) -> Iterator[Component]:
    """The components whose tensors are there, PyTorch checkpoints among them."""
    for component in components(model_dir, model):
        names = [name.format(part=component.name) for name in CHECKPOINT_FILES]
        paths = [component.path, *(model_dir / name for name in names)]
        found = next((path for path in paths if path.is_file()), None)
        if found is not None:
            yield Component(component.name, component.number, found)


def expected_shapes(config: ExpertConfig | RouterConfig) -> Shapes:
    """Name -> shape of every tensor that a component of these sizes has."""
    import torch

    from baguette.families.paris.expert import Expert
    from baguette.families.paris.router import Router
    from baguette.weights import shapes_of

    with torch.device("meta"):
        network = Expert(config) if isinstance(config, ExpertConfig) else Router(config)
    return shapes_of(network)
