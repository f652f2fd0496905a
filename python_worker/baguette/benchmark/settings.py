"""What there is to measure, and whether it fits here. Called by the benchmark's `measuring`.

A setting is one way to run the pipeline; its row is what came of it: figures, or the reason why
there are none. Needs torch for nothing but asking a GPU how much of it is free.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from baguette.mixture import Choice
from baguette.replay import Routing
from baguette.room import Need, Sizes, need
from baguette.runtime import Runtime

OWN, EVEN, ONE = "router", "even", "one"
OURS, BASE = "Baguette", "plain loop"  # in the comparison
# What a process takes before it has loaded anything: Python, torch and the libraries on it; and
# on a GPU its context and workspaces.
PROCESS = Need(device=1_000_000_000, host=800_000_000)
# Of what is free, processes waiting beside each other may take so much.
_SHARE = 0.8
_TOGETHER = 12
_GB = 1e9


@dataclass(frozen=True)
class Setting:
    """One configuration of the pipeline, as the table names it."""

    precision: str
    offload: int
    batch: int
    compile: bool = False
    routing: str = OWN

    def runtime(self, device: str, threads: int) -> Runtime:
        """What to load the model with."""
        return Runtime(self.precision, device, threads, self.offload, self.compile)

    def name(self) -> str:
        """As in "BF16, no offload, batch 4"."""
        parts = [
            self.precision.upper(),
            f"offload {self.offload}" if self.offload else "no offload",
        ]
        parts.append(f"batch {self.batch}")
        if self.compile:
            parts.append("compiled")
        if self.routing != OWN:
            parts.append({EVEN: "all experts evenly", ONE: "always the same experts"}[self.routing])
        return ", ".join(parts)


@dataclass
class Row:
    """What a setting came to. `why` says why there is nothing; times are seconds, memory bytes."""

    setting: Setting
    why: str = ""
    seconds: list[dict[str, float]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load_s: float = 0.0


def every(
    precisions: Sequence[str], offloads: Sequence[int], batches: Sequence[int],
    compiled: Sequence[bool], routings: Sequence[str],
) -> list[Setting]:  # fmt: skip
    """All combinations, in the order of the table."""
    return [
        Setting(*chosen)
        for chosen in itertools.product(precisions, offloads, batches, compiled, routings)
    ]


def too_large(
    setting: Setting, sizes: Sizes, num_experts: int, on_gpu: bool, there: Need
) -> str | None:
    """Why this setting cannot be measured in this memory, or None where it can."""
    if setting.offload and not on_gpu:
        return "not measured: offloading needs a GPU"
    wanted = _with_process(_need(setting, sizes, num_experts, on_gpu), on_gpu)
    if wanted.device > there.device:
        where = "on the GPU" if on_gpu else "of memory"
        return (
            f"does not fit: needs about {_gb(wanted.device)} {where}, {_gb(there.device)} are free"
        )
    if wanted.host > there.host:
        return (
            f"does not fit: needs about {_gb(wanted.host)} of CPU memory, "
            f"{_gb(there.host)} are free"
        )
    return None


def groups(
    rows: Sequence[Row], sizes: dict[int, Sizes], num_experts: int, on_gpu: bool, there: Need
) -> Iterator[list[Row]]:
    """Rows in order, as many at once as may be loaded beside each other and take turns."""
    group: list[Row] = []
    device, host = 0, 0
    for row in rows:
        one = _with_process(
            _need(row.setting, sizes[row.setting.batch], num_experts, on_gpu), on_gpu
        )
        full = device + one.device > _SHARE * there.device or host + one.host > _SHARE * there.host
        if group and (full or len(group) == _TOGETHER):
            yield group
            group, device, host = [], 0, 0
        group.append(row)
        device, host = device + one.device, host + one.host
    if group:
        yield group


def _need(setting: Setting, sizes: Sizes, num_experts: int, on_gpu: bool) -> Need:
    return need(sizes, num_experts, setting.runtime("auto", 1), on_gpu)


def _with_process(wanted: Need, on_gpu: bool) -> Need:
    if on_gpu:
        return Need(wanted.device + PROCESS.device, wanted.host + PROCESS.host)
    return Need(wanted.device + PROCESS.host, wanted.device + PROCESS.host)


def routing(kind: str, n: int, steps: int, top_k: int, experts: int) -> Routing | None:
    """The routing to impose on a request: even is round robin, one is always the first experts.

    None lets the router decide.
    """
    if kind == OWN:
        return None
    weights = (1.0 / top_k,) * top_k

    def choice(image: int, step: int) -> Choice:
        first = (image + step) * top_k if kind == EVEN else 0
        return Choice(tuple((first + j) % experts for j in range(top_k)), weights, 1.0)

    return [[choice(image, step) for step in range(steps)] for image in range(n)]


def record(row: Row) -> dict[str, Any]:
    """A row for programs."""
    return {
        **vars(row.setting), "name": row.setting.name(), "why": row.why, "seconds": row.seconds,
        "memory_bytes": row.memory, "notes": row.notes, "load_s": row.load_s,
    }  # fmt: skip


def _gb(count: int) -> str:
    return f"{count / _GB:.1f} GB"
