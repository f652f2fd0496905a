"""All experts of a model in one process: loaded, checked for room, each where it can compute.

Called by the single-process pipeline and its two ways of sampling. What dies with it: the experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from baguette import room
from baguette.device import Numbers
from baguette.errors import WeightsError
from baguette.families.paris import cost
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.contexts import ContextCache
from baguette.families.paris.expert import PreparedExpert
from baguette.families.paris.files import expert_file, refuse_damaged, survey
from baguette.families.paris.loading import load_expert, sizes
from baguette.lanes import Lanes
from baguette.residency import Residency
from baguette.runtime import Runtime
from baguette.weights import INT8, read_header


class Ensemble:
    """Every expert of a model directory; with `offload`, that many wait in CPU memory.

    `lanes` are the cores that all parts of a picture share, `costs` what those parts cost.
    """

    def __init__(
        self, model_dir: Path, config: ModelConfig, runtime: Runtime, numbers: Numbers
    ) -> None:
        self.notes: list[str] = []
        _check_whole(model_dir, config)
        if runtime.precision == "int8" and not _holds_int8(model_dir):
            self.notes.append(
                f"quantising while loading: {model_dir} is not kept as int8 (`python quantize.py` "
                "makes such files)"
            )
        room.check(sizes(model_dir), config.num_experts, runtime, numbers)
        on_gpu = numbers.device.type != "cpu"
        if runtime.offload and not on_gpu:
            self.notes.append("offload changes nothing: without a GPU experts are in CPU memory")
        away = runtime.offload if on_gpu else 0
        where = replace(numbers, device=torch.device("cpu")) if away else numbers
        contexts = ContextCache()
        self.experts: dict[int, PreparedExpert] = {
            number: load_expert(model_dir, number, where, contexts)
            for number in range(config.num_experts)
        }
        self.costs = cost.of_model(model_dir)
        # A GPU has a queue of its own: what would be gained there is lost to its one stream.
        self.lanes = Lanes(1 if on_gpu else runtime.threads)
        self._residency: Residency | None = None
        if away:
            modules = {number: expert.module for number, expert in self.experts.items()}
            self._residency = Residency(modules, numbers.device, config.num_experts - away)
        if runtime.compile:
            for expert in self.experts.values():
                expert.compile()

    def visit(self, wanted: Sequence[int]) -> Iterator[tuple[int, PreparedExpert]]:
        """Each of these experts, once, when it can compute; in the order that moves least."""
        order = wanted if self._residency is None else self._residency.visit(wanted)
        for number in order:
            yield number, self.experts[number]


def _holds_int8(model_dir: Path) -> bool:
    return any(entry.dtype == INT8 for entry in read_header(expert_file(model_dir, 0)))


def _check_whole(model_dir: Path, config: ModelConfig) -> None:
    found, refused = survey(model_dir)
    refuse_damaged(model_dir, refused)
    missing = sorted(set(range(config.num_experts)) - {file.number for file in found})
    if missing:
        names = ", ".join(f"expert_{number}" for number in missing)
        raise WeightsError(f"{model_dir} lacks {names}: one process needs every expert")
