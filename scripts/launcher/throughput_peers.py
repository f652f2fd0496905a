"""How others do it, in the same run: one server by itself, and random choice among replicas.

A section of scripts/bench_throughput.py, on simulated devices. Three clusters stand side by side
and take turns: one node that holds every expert and draws one request after the other, as image
servers do; nodes with two replicas of every expert, asked at random (the setting `choice`), as
serving libraries do; and the same asked by measurement. Then one node of the latter two becomes ten
times slower, and they are measured again. Random choice keeps all the rest of ours: who is slow is
not asked alone, out of the same budget of extra calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from launcher.control import Control
from launcher.erlang import Atom
from launcher.loads import PROMPT, Order, Picture, draw, extra_share, rate, requesters, seconds
from launcher.machine_use import busy, watched
from launcher.simulated import Fleet, fleet
from launcher.spreads import percentile, shown, spread, table
from launcher.throughput import Bench, Record, check_replicas, described, device

NODES = 4
EXPERTS = 2  # which four equal nodes hold twice each, as none has room for both
SLOW = 0.1
TOP_K = 2
ALONE, RANDOM, MEASURED = "one node, one by one", "random choice", "measured choice"


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    dilation: int = 4
    concurrent: int = 8
    images: int = 48
    steps: int = 10
    rounds: int = 3


SMALL = Sizes(1, 4, 8, 3, 1)


@dataclass
class Side:
    """One of those compared."""

    name: str
    running: Fleet
    controls: Sequence[Control]
    well: list[list[Picture]] = field(default_factory=list)
    slow: list[list[Picture]] = field(default_factory=list)


def measure(bench: Bench) -> Record:
    """All clusters at once, one of them drawing at a time."""
    sizes = SMALL if bench.small else Sizes()
    with ExitStack() as stack:
        sides = [_side(bench, stack, sizes, number) for number in range(3)]
        return {
            "device": described(device(sizes.dilation)),
            "nodes": NODES,
            "concurrent": sizes.concurrent,
            **watched(lambda: _rounds(bench, sides, sizes)),
        }


def _side(bench: Bench, stack: ExitStack, sizes: Sizes, number: int) -> Side:
    name, nodes, settings = (
        (ALONE, 1, {"max_running": 1}),
        (RANDOM, NODES, {"max_running": sizes.concurrent, "choice": Atom("random")}),
        (MEASURED, NODES, {"max_running": sizes.concurrent}),
    )[number]
    bench.progress.line(f"{name}:")
    used = device(sizes.dilation, EXPERTS, spare=0)
    running = stack.enter_context(
        fleet(bench.port + number, nodes, used, bench.progress, **settings)
    )
    side = Side(name, running, stack.enter_context(requesters(running, 1)))
    figures = bench.settled(running)
    if nodes == NODES:
        check_replicas(figures)
    draw(side.controls, _order(sizes, sizes.concurrent))
    return side


def _order(sizes: Sizes, images: int) -> Order:
    request = {"prompt": PROMPT, "steps": sizes.steps, "deterministic": False}
    return Order(request, sizes.concurrent, images)


def _rounds(bench: Bench, sides: Sequence[Side], sizes: Sizes) -> Record:
    order = _order(sizes, sizes.images)
    for _ in range(sizes.rounds):
        for side in sides:
            bench.progress.waiting(f"{side.name}, all well")
            side.well.append(draw(side.controls, order))
    for side in sides[1:]:
        side.running.simulate(NODES - 1, speed=SLOW)
    for _ in range(sizes.rounds):
        for side in sides[1:]:
            bench.progress.waiting(f"{side.name}, one slow")
            side.slow.append(draw(side.controls, order))
    rows = [_row(side.name, "all well", side.well) for side in sides]
    rows += [_row(side.name, "one node ten times slower", side.slow) for side in sides[1:]]
    return {"rows": rows}


def _row(name: str, how: str, rounds: Sequence[list[Picture]]) -> Record:
    times = [seconds(picture) for pictures in rounds for picture in pictures]
    return {
        "side": name,
        "replicas": how,
        "images_per_second": spread([rate(pictures) for pictures in rounds]),
        "image_seconds": {"p50": round(median(times), 3), "p99": round(percentile(times, 99), 3)},
        "extra_calls": round(extra_share([p for ps in rounds for p in ps], TOP_K), 4),
    }


def markdown(record: Record) -> list[str]:
    """The table."""
    heads = ("", "replicas", "images/s", "s an image p50", "p99", "extra calls")
    rows = [
        (
            row["side"],
            row["replicas"],
            shown(row["images_per_second"]),
            f"{row['image_seconds']['p50']:.2f}",
            f"{row['image_seconds']['p99']:.2f}",
            f"{100 * row['extra_calls']:.1f} %",
        )
        for row in record["rows"]
    ]
    return [
        *table(heads, rows),
        "",
        f"Device: {record['device']}; {record['nodes']} nodes but for the one; "
        f"{record['concurrent']} pictures at a time. {busy(record)}",
    ]
