"""Measure what was asked: settings in turn, then the plain loop against the pipeline.

Called by the command. Settings that fit into memory beside each other are loaded together and take
turns, round after round; the others follow. What dies with it: the processes that measure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from baguette import room
from baguette.benchmark.children import Child, ChildFailed, child
from baguette.benchmark.settings import OWN, Row, Setting, groups, too_large
from baguette.device import named, pin_threads
from baguette.families.paris import cost
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.files import expert_config
from baguette.families.paris.loading import sizes
from baguette.probe import matmul_gflops
from baguette.room import Need
from baguette.runtime import Runtime

# A setting that would take longer than this in all is told, not measured.
LONGEST_S = 1800.0
_TRIES = 5
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure, and with what. `compare` is the images of the comparison, 0 for none."""

    model_dir: Path
    device: str
    threads: int
    steps: int
    rounds: int
    settings: Sequence[Setting]
    compare: int
    full: bool
    routing: str = OWN


@dataclass
class Compared:
    """The comparison's contestants, and seconds by contestant and round; or why there are none."""

    images: int
    why: str = ""
    contestants: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)

    def median_s(self, place: int) -> float:
        """What contestant number `place` took for all images."""
        return median(self.seconds[place])


@dataclass
class Results:
    """Everything the report prints."""

    plan: Plan
    config: ModelConfig
    costs: cost.Costs
    on_gpu: bool
    gflops: int
    rows: list[Row]
    bf16_gain: float = 1.0  # a CPU's products in bf16 against those in fp32
    compared: Compared | None = None


def measure(plan: Plan, tell: Tell) -> Results:
    """All of it; `tell` gets a few words before each thing that takes time."""
    device = named(plan.device)
    pin_threads(plan.threads)
    config, costs = ModelConfig.read(plan.model_dir), cost.of_model(plan.model_dir)
    tell("measuring the matrix rate")
    results = Results(
        plan, config, costs, device.type != "cpu", _rate(device), [Row(s) for s in plan.settings]
    )
    if not results.on_gpu:
        expert = expert_config(plan.model_dir, 0)
        results.bf16_gain = bf16_gain(expert.hidden_size, 2 * expert.tokens)
    there = room.free(device)
    needs = {s.batch: sizes(plan.model_dir, s.batch) for s in plan.settings}
    for row in results.rows:
        large = too_large(
            row.setting, needs[row.setting.batch], config.num_experts, results.on_gpu, there
        )
        row.why = large or too_long(results, row.setting.batch, 1) or ""
    measured = [row for row in results.rows if not row.why]
    for group in groups(measured, needs, config.num_experts, results.on_gpu, there):
        _take_turns(plan, group, tell)
    if plan.compare:
        results.compared = Compared(plan.compare)
        _compare(results, results.compared, there, tell)
    return results


def _rate(device: torch.device) -> int:
    """The device's matrix products in GFLOP/s, as a node measures itself."""
    probe = matmul_gflops(device)
    while True:
        try:
            next(probe)
        except StopIteration as end:
            return int(end.value)


def bf16_gain(width: int, rows: int) -> float:
    """How many times as fast a CPU's widest linear is in bf16 as in fp32, with these threads."""
    x, w = torch.rand(rows, width), torch.rand(4 * width, width)
    return _least_s(x, w) / max(_least_s(x.bfloat16(), w.bfloat16()), 1e-9)


@torch.inference_mode()
def _least_s(x: Tensor, w: Tensor) -> float:
    F.linear(x, w)  # the first call of a shape pays for its kernel
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        F.linear(x, w)
        times.append(time.perf_counter() - start)
    return min(times)


def too_long(results: Results, images: int, sides: int) -> str | None:
    """Whether so many images by so many sides would take too long even at the highest rate."""
    plan = results.plan
    flops = results.costs.kept(plan.steps, results.config.defaults.top_k) * images
    seconds = (
        sides * (plan.rounds + 1) * flops / (max(1.0, results.bf16_gain) * results.gflops * 1e9)
    )
    if seconds <= LONGEST_S:
        return None
    return f"not measured: would take over {seconds / 60:.0f} minutes; lower --num_steps"


def _take_turns(plan: Plan, rows: Sequence[Row], tell: Tell) -> None:
    """Load all of these, then let each draw once a round."""
    with contextlib.ExitStack() as stack:
        children: list[tuple[Row, Child]] = []
        for row in rows:
            tell(f"loading {row.setting.name()}")
            process = stack.enter_context(child("setting", **_job(plan, row.setting)))
            with _excused(row):
                about = process.ready()
                row.load_s = about["load_s"]
                row.notes = [f"computes in {about['computes']}"]
                children.append((row, process))
        for number in range(plan.rounds):
            for row, process in _well(children):
                tell(f"round {number + 1}/{plan.rounds}: {row.setting.name()}")
                with _excused(row):
                    row.seconds.append(process.run())
        for row, process in _well(children):
            with _excused(row):
                row.memory = process.end()


def _well(children: Sequence[tuple[Row, Child]]) -> list[tuple[Row, Child]]:
    """Those that have not failed yet."""
    return [(row, process) for row, process in children if not row.why]


@contextlib.contextmanager
def _excused(row: Row) -> Iterator[None]:
    """A setting that fails is told in its row; the others go on."""
    try:
        yield
    except ChildFailed as error:
        row.why = f"not measured: {error}"


def _job(plan: Plan, setting: Setting) -> dict[str, Any]:
    return {
        "model": str(plan.model_dir),
        "runtime": asdict(setting.runtime(plan.device, plan.threads)),
        "batch": setting.batch,
        "steps": plan.steps,
        "routing": setting.routing,
    }


def _compare(results: Results, compared: Compared, there: Need, tell: Tell) -> None:
    plan = results.plan
    compared.why = _no_room(results, there) or too_long(results, plan.compare, 4) or ""
    if compared.why:
        return
    tell("loading the plain loop, and looking for its best thread count")
    job = {
        "model": str(plan.model_dir), "device": plan.device, "cores": plan.threads,
        "batch": plan.compare, "steps": plan.steps, "routing": plan.routing, "full": plan.full,
    }  # fmt: skip
    try:
        with child("comparison", **job) as process:
            compared.contestants = process.ready()["contestants"]
            compared.seconds = [[] for _ in compared.contestants]
            for number in range(plan.rounds):
                tell(f"round {number + 1}/{plan.rounds}: the plain loop against the pipeline")
                for place, seconds in process.run().items():
                    compared.seconds[int(place)].append(seconds)
    except ChildFailed as error:
        compared.why = f"not measured: {error}"


def _no_room(results: Results, there: Need) -> str | None:
    """The comparison holds the weights twice: the plain loop's and the pipeline's."""
    plan = results.plan
    kinds = ("bf16",) if results.on_gpu else ("fp32", "bf16") if plan.full else ("fp32",)
    model = sizes(plan.model_dir, plan.compare)
    experts = results.config.num_experts
    wanted = 2 * sum(
        room.need(model, experts, Runtime(kind), results.on_gpu).device for kind in kinds
    )
    if wanted <= there.device:
        return None
    return f"not measured: needs about {wanted / 1e9:.0f} GB for two copies of the weights"
