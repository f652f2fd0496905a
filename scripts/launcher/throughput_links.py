"""Round trips of 1, 10 and 45 ms between nodes: a picture's time against what it must cost.

A section of scripts/bench_throughput.py: simulated devices, one picture at a time. The floor of a
picture is encoding, decoding and, for each step, its advance and the longest of its calls: what was
computed and, where another node answered, one round trip: the one that was put in, and, in another
column, the one that plain TCP has on the same way (launcher/echo.py), in which the proxy's own time
is and the waking of a process. What the proxy costs itself is seen by the first row, of a cluster
without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from launcher import echo
from launcher.control import Control
from launcher.delays import ECHO, Delays, delays
from launcher.loads import PROMPT, Order, Picture, draw, requesters
from launcher.machine_use import busy, watched
from launcher.nodes import Cluster, Launch, address
from launcher.simulated import cluster_of
from launcher.spreads import percentile, shown, spread, table
from launcher.throughput import (
    ADVANCE_US,
    DECODE_US,
    ENCODE_US,
    Bench,
    Record,
    described,
    device,
)

NODES = 4
WANTED = 1.05


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    rtt_ms: tuple[float, ...] = (0, 1, 10, 45)
    rounds: int = 3
    images: int = 5
    steps: int = 30


SMALL = Sizes((0, 10), 1, 2, 5)


def measure(bench: Bench) -> Record:
    """A cluster without a proxy; then one with it, where the round trips take turns."""
    sizes = SMALL if bench.small else Sizes()
    order = Order({"prompt": PROMPT, "steps": sizes.steps, "deterministic": False}, 1, sizes.images)
    bench.progress.line(f"{NODES} simulated nodes:")
    there = (address(0), bench.port + ECHO)
    with _ready(bench, Cluster(bench.port, mode="bench"), order) as controls, echo.server(*there):
        trips = echo.trips_ms(*there)
        direct = _row(0, draw(controls, replace(order, images=sizes.rounds * sizes.images)), trips)
    bench.progress.line(f"{NODES} simulated nodes with a proxy between any two:")
    cluster = Cluster(bench.port, mode="bench", apart=True)
    with (
        delays(cluster, NODES) as between,
        echo.server(*between.echo_there),
        _ready(bench, cluster, order) as controls,
    ):
        rows = watched(lambda: _rounds(controls, between, order, sizes))
    return {"device": described(device()), "nodes": NODES, "direct": direct, **rows}


@contextmanager
def _ready(bench: Bench, cluster: Cluster, order: Order) -> Iterator[list[Control]]:
    """A cluster that is at rest and knows the prompt, with one requesting node."""
    launch = Launch(NODES, None, engine=device(exact=True).settings(NODES))
    with (
        cluster_of(cluster, launch, bench.progress) as running,
        requesters(running, 1) as controls,
    ):
        bench.settled(running)
        draw(controls, Order({**order.request, "top_k": "full"}, 1, 1))
        yield controls


def _rounds(controls: list[Control], between: Delays, order: Order, sizes: Sizes) -> Record:
    found: dict[float, list[Picture]] = {rtt: [] for rtt in sizes.rtt_ms}
    trips: dict[float, list[float]] = {rtt: [] for rtt in sizes.rtt_ms}
    for _ in range(sizes.rounds):
        for rtt in sizes.rtt_ms:
            between.rtt_ms = rtt
            trips[rtt] += echo.trips_ms(*between.echo_at)
            draw(controls, Order(order.request, 1, 1))  # links are measured anew
            found[rtt] += draw(controls, order)
    return {"rows": [_row(rtt, pictures, trips[rtt]) for rtt, pictures in found.items()]}


def _row(rtt: float, pictures: list[Picture], trips_ms: list[float]) -> Record:
    trip = median(trips_ms)
    ratios = [_seconds(picture) / _floor(picture, rtt) for picture in pictures]
    steps = [len(picture["steps"]) for picture in pictures]
    beyond = [
        1000 * (_seconds(picture) - _floor(picture, rtt)) / count
        for picture, count in zip(pictures, steps, strict=True)
    ]
    remote = [step[3] > 0 for picture in pictures for step in picture["steps"]]
    return {
        "rtt_ms": rtt,
        "tcp_ms": round(trip, 3),
        "ratio_by_tcp": spread([_seconds(picture) / _floor(picture, trip) for picture in pictures]),
        "image_seconds": spread([_seconds(picture) for picture in pictures]),
        "floor_seconds": round(median(_floor(picture, rtt) for picture in pictures), 4),
        "ratio": spread(ratios),
        "ratio_p90": round(percentile(ratios, 90), 3),
        "beyond_ms_per_step": spread(beyond),
        "steps_with_a_round_trip": round(sum(remote) / len(remote), 3),
    }


def _seconds(picture: Picture) -> float:
    """From the begin to the end: nobody else waits."""
    taken: float = (picture["ended_us"] - picture["began_us"]) / 1e6
    return taken


def _floor(picture: Picture, rtt_ms: float) -> float:
    """What it must take, in seconds."""
    trip = 1000 * rtt_ms
    asked = [max(here, away + trip if away else 0) for _, _, here, away in picture["steps"]]
    # The first routing is an advance too.
    own = ENCODE_US + DECODE_US + ADVANCE_US * (len(asked) + 1)
    return (own + sum(asked)) / 1e6


def markdown(record: Record) -> list[str]:
    """The table."""
    heads = (
        *("round trip", "s an image", "floor", "of the floor", "beyond it, ms a step"),
        *("plain TCP's round trip, ms", "of the floor with that"),
    )
    rows = [_cells("no proxy", record["direct"])]
    rows += [_cells(f"{row['rtt_ms']:g} ms", row) for row in record["rows"]]
    return [
        *table(heads, rows),
        "",
        f"Device: {record['device']}, {record['nodes']} nodes, one picture at a time; at most "
        f"{WANTED} is wanted. {busy(record)}",
    ]


def _cells(name: str, row: Record) -> tuple[str, ...]:
    return (
        name,
        shown(row["image_seconds"]),
        f"{row['floor_seconds']:.3g}",
        shown(row["ratio"]),
        shown(row["beyond_ms_per_step"]),
        f"{row['tcp_ms']:.2f}",
        shown(row["ratio_by_tcp"]),
    )
