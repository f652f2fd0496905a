"""What a cluster on this machine uses of it, and whether the machine was too busy to measure.

Used by the programs that measure with many nodes (scripts/bench_cluster.py,
scripts/bench_throughput.py): figures of simulated devices are of what the beams add to them, and
say nothing where everybody waited for a core.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from launcher.processes import Process
from launcher.simulated import Figures, Fleet

TOO_BUSY = 80.0
Record = dict[str, Any]


def watched(measure: Callable[[], Record]) -> Record:
    """A measure with how busy the machine was meanwhile, and whether that makes it void."""
    psutil.cpu_percent()
    found = measure()
    percent = found.get("machine_busy_percent", psutil.cpu_percent())
    return {**found, "machine_busy_percent": percent, "void": percent > TOO_BUSY}


def busy(record: Record) -> str:
    """The sentence about it for what `watched` gave."""
    void = ": void" if record["void"] else ""
    return f"Machine {record['machine_busy_percent']:.0f} % busy{void}."


def cpu_seconds(running: Fleet) -> float:
    """What all beams have used of the CPU, the kernel's work for them included."""
    return used(running.cluster.nodes)


def used(processes: Sequence[Process]) -> float:
    """Seconds of the CPU that these have used, the kernel's work for them included."""
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return sum(t.user + t.system for t in times)


def rate(before: Figures, after: Figures) -> dict[str, float]:
    """Per second, of one node: the distribution's counters, and gossip's own where it has them."""
    seconds = (after["at_ms"] - before["at_ms"]) / 1000

    def per_second(part: str, name: str) -> float:
        grown: float = after[part][name] - before[part][name]
        return grown / seconds

    found = {
        "wire_bytes": per_second("wire", "send_oct"),
        "wire_messages": per_second("wire", "send_cnt"),
    }
    if after["gossip"] and before["gossip"]:
        found["gossip_bytes"] = per_second("gossip", "bytes_sent")
        found["gossip_messages"] = per_second("gossip", "messages_sent")
    return found


def machine() -> Record:
    """What this was measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "system": platform.platform(),
    }
