"""kill -9 of one of two replicas while sixteen pictures are in the drawing.

A section of scripts/bench_throughput.py, on simulated devices: two replicas of every expert, and
the node that is killed asks for no pictures. What came through is told second by second, as the
steps that were answered; the dip is the least of those seconds after the kill against the median
before it. The one that is left of two replicas is asked in every step: half is what devices can do.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from launcher.control import Control
from launcher.loads import (
    PROMPT,
    Load,
    Order,
    Picture,
    different,
    draw,
    requesters,
    seconds,
    steps_between,
)
from launcher.machine_use import busy, watched
from launcher.simulated import Fleet, fleet
from launcher.spreads import percentile, table
from launcher.throughput import Bench, Record, check_replicas, described, device

NODES, REQUESTERS = 4, 2
EXPERTS = 2  # which four equal nodes hold twice each, as none has room for both
CONCURRENT = 16


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    dilation: int = 4
    steps: int = 10
    warm_seconds: float = 10.0
    seconds: float = 20.0  # before the kill, and after it
    window: float = 1.0


SMALL = Sizes(1, 4, 1.0, 3.0, 1.0)


def measure(bench: Bench) -> Record:
    """One kill."""
    sizes = SMALL if bench.small else Sizes()
    used = device(sizes.dilation, EXPERTS, spare=0)
    bench.progress.line(f"{NODES} simulated nodes, two replicas of every expert:")
    with (
        fleet(bench.port, NODES, used, bench.progress, max_running=CONCURRENT) as running,
        requesters(running, REQUESTERS) as controls,
    ):
        check_replicas(bench.settled(running))
        return {
            "device": described(used),
            "nodes": NODES,
            "concurrent": CONCURRENT,
            **watched(lambda: _killed(running, controls, sizes)),
        }


def _killed(running: Fleet, controls: Sequence[Control], sizes: Sizes) -> Record:
    request = {"prompt": PROMPT, "steps": sizes.steps, "deterministic": False}
    draw(controls, Order({**request, "top_k": "full"}, REQUESTERS, REQUESTERS))
    span = sizes.warm_seconds + 2 * sizes.seconds
    load = Load(controls, Order(request, CONCURRENT, 1_000_000, span))
    time.sleep(sizes.warm_seconds + sizes.seconds)
    at = time.time()
    running.cluster.nodes[NODES - 1].signal(signal.SIGKILL)
    pictures = load.ended()
    good = [picture for picture in pictures if picture["ok"]]
    count = int(sizes.seconds / sizes.window)
    before = _windows(good, at - count * sizes.window, count, sizes)
    after = _windows(good, at, count, sizes)
    usual = median(before)
    return {
        "images": len(pictures),
        "lost": len(pictures) - len(good),
        "why": [picture["why"]["sentence"] for picture in pictures if not picture["ok"]],
        "seeds_with_different_pictures": different(good),
        "failovers": sum(picture["failovers"] for picture in good),
        "steps_per_second_before": before,
        "steps_per_second_after": after,
        "usual": usual,
        "dip": round(min(after) / usual, 3) if usual else None,
        "seconds_under_half": sum(value < usual / 2 for value in after) * sizes.window,
        "left": round(median(after[count // 2 :]) / usual, 3) if usual else None,
        "image_seconds": {
            "before": _times([p for p in good if p["ended_us"] < 1e6 * at]),
            "hit": _times([p for p in good if p["asked_us"] < 1e6 * at <= p["ended_us"]]),
            "after": _times([p for p in good if p["asked_us"] >= 1e6 * at]),
        },
    }


def _windows(pictures: list[Picture], since: float, count: int, sizes: Sizes) -> list[float]:
    """Steps a second, window by window."""
    starts = [since + number * sizes.window for number in range(count)]
    found = [steps_between(pictures, start, start + sizes.window) for start in starts]
    return [round(steps / sizes.window, 2) for steps in found]


def _times(pictures: list[Picture]) -> Record:
    times = [seconds(picture) for picture in pictures]
    if not times:
        return {"images": 0, "p50": None, "p99": None}
    return {
        "images": len(times),
        "p50": round(median(times), 3),
        "p99": round(percentile(times, 99), 3),
    }


def markdown(record: Record) -> list[str]:
    """What was lost, the dip, and how long pictures took."""
    rows = [
        ("pictures, lost of them", f"{record['images']}, {record['lost']}"),
        ("seeds with different pictures", record["seeds_with_different_pictures"]),
        ("calls asked of somebody else", record["failovers"]),
        ("steps a second before the kill, median", f"{record['usual']:.1f}"),
        ("the least second after it, of that", _percent(record["dip"])),
        ("seconds under half of it", f"{record['seconds_under_half']:g}"),
        ("in the second half of what was watched", _percent(record["left"])),
    ]
    for name, times in record["image_seconds"].items():
        shown = "-" if times["p50"] is None else f"{times['p50']:.2f}, {times['p99']:.2f}"
        rows.append((f"s an image, {name} ({times['images']}), p50, p99", shown))
    return [
        *table(("kill -9 of one of two replicas", ""), rows),
        "",
        f"Device: {record['device']}; {record['nodes']} nodes, {record['concurrent']} pictures at "
        f"a time. {busy(record)}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
