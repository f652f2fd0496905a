"""What the sections of scripts/bench_throughput.py share: where to measure, and a declared device.

DEVICE is nobody's measurement. Its row is what an RTX 4090 would take for one guided image of one
Paris expert: 2 x 288.8 GFLOP (docs/PERFORMANCE.md) at half of the 165.2 TFLOP/s NVIDIA publishes
for it (bf16, dense, sums in fp32), 7 ms; a batch's fixed part, reading 1.2 GB of weights at
1 TB/s and starting some hundred kernels, is taken as 2 ms. Half is an assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.options import Model
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.simulated import REST_SECONDS, Device, Figures, Fleet

BATCH_US, ROW_US = 2_000, 7_000
ADVANCE_US, ENCODE_US, DECODE_US = 500, 10_000, 20_000
# Just longer than a plan is agreed on before anything moves.
SMALL_REST_SECONDS = 2.5
Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where a section measures, and who keeps what it has so far."""

    port: int
    model_dir: Path
    model: Model
    small: bool
    progress: Progress
    keep: Callable[[Record], None] = lambda _: None
    nodes: Sequence[int] | None = None  # sizes of clusters to look at, of those there are

    def wants(self, nodes: int) -> bool:
        """Whether clusters of this size are asked for."""
        return self.nodes is None or nodes in self.nodes

    def settled(self, running: Fleet) -> list[Figures]:
        """Every node's figures, once nothing moves any more."""
        rest = SMALL_REST_SECONDS if self.small else REST_SECONDS
        return running.at_rest(running.launch.nodes, self.progress.waiting, rest)


def device(
    dilation: int = 1, experts: int = 8, spare: int = 1, skew: float = 0.0, exact: bool = False
) -> Device:
    """DEVICE with all its times multiplied; `exact` to the microsecond: a core spins for it."""
    others = {"advance_us": ADVANCE_US, "encode_us": ENCODE_US, "decode_us": DECODE_US}
    return Device(
        batch_us=dilation * BATCH_US,
        row_us=dilation * ROW_US,
        load_ms=100,
        experts=experts,
        spare=spare,
        more={"skew": skew, "exact": exact, **{name: dilation * us for name, us in others.items()}},
    )


def check_replicas(figures: list[Figures]) -> None:
    """Refused unless every expert has two holders: those who compare replicas need them."""
    holders = {e["expert"]: e["holders"] for f in figures for e in f["experts"]}
    if any(len(nodes) != 2 for nodes in holders.values()):
        raise Refused(f"not every expert has two holders: {holders}; run it again")


def described(used: Device) -> str:
    """A device in a sentence under a table."""
    return f"batch {used.batch_us / 1000:g} ms + {used.row_us / 1000:g} ms a row"
