"""Pictures of a node in lockstep, as one request has them, or each at its own step.

A section of scripts/bench_throughput.py, on simulated devices, each of which has its own time. On
processes that share two cores one request a node draws more than as many pictures by themselves
(`concurrent` calls it the ceiling): a message and a routing serve them all. Here is what the same
costs where machines compute beside each other: whoever waits for the slowest expert of four
pictures has nothing to ask the others for. Both sides draw in one cluster, in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from launcher.control import Control
from launcher.loads import PROMPT, Order, Picture, draw, rate, requesters, seconds
from launcher.machine_use import busy, watched
from launcher.simulated import fleet
from launcher.spreads import shown, spread, table
from launcher.throughput import Bench, Record, described, device

OWN, LOCKSTEP = "each at its own step", "in lockstep, one request a node"


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    nodes: int = 8
    dilation: int = 4
    company: int = 4  # pictures at a time on a node
    turns: int = 4  # so often as many
    steps: int = 30
    rounds: int = 3


SMALL = Sizes(nodes=2, dilation=1, company=2, turns=1, steps=3, rounds=1)


def measure(bench: Bench) -> Record:
    """One cluster, all of whose nodes ask; the sides take turns."""
    sizes = SMALL if bench.small else Sizes()
    most = sizes.nodes * sizes.company
    used = device(sizes.dilation)
    with (
        fleet(bench.port, sizes.nodes, used, bench.progress, max_running=most) as running,
        requesters(running, sizes.nodes) as controls,
    ):
        bench.settled(running)
        draw(controls, _order(sizes, 1, turns=1))
        return {
            "device": described(used),
            "nodes": sizes.nodes,
            "company": sizes.company,
            "steps": sizes.steps,
            **watched(lambda: _rounds(bench, controls, sizes)),
        }


def _order(sizes: Sizes, images: int, turns: int) -> Order:
    """So many requests of so many images as keep a node's company of pictures in the drawing."""
    at_once = sizes.nodes * sizes.company // images
    request = {"prompt": PROMPT, "steps": sizes.steps, "deterministic": False, "n": images}
    return Order(request, at_once, turns * at_once)


def _rounds(bench: Bench, controls: Sequence[Control], sizes: Sizes) -> Record:
    sides = {OWN: 1, LOCKSTEP: sizes.company}
    drawn: dict[str, list[list[Picture]]] = {name: [] for name in sides}
    for _ in range(sizes.rounds):
        for name, images in sides.items():
            bench.progress.waiting(name)
            drawn[name].append(draw(controls, _order(sizes, images, sizes.turns)))
    rows = [_row(name, images, drawn[name]) for name, images in sides.items()]
    own, lockstep = (row["images_per_second"]["median"] for row in rows)
    return {"rows": rows, "ratio": round(lockstep / own, 3)}


def _row(name: str, images: int, rounds: Sequence[list[Picture]]) -> Record:
    times = [seconds(picture) for pictures in rounds for picture in pictures]
    return {
        "side": name,
        "images_per_second": spread([images * rate(pictures) for pictures in rounds]),
        "image_seconds": round(median(times), 3),
    }


def markdown(record: Record) -> list[str]:
    """The table."""
    rows = [
        (row["side"], shown(row["images_per_second"]), f"{row['image_seconds']:.2f}")
        for row in record["rows"]
    ]
    return [
        *table(("pictures of a node", "images/s", "s an image p50"), rows),
        "",
        f"Lockstep draws {record['ratio']:.2f} times as much. Device: {record['device']}; "
        f"{record['nodes']} nodes, {record['company']} pictures of {record['steps']} steps at a "
        f"time on each. {busy(record)}",
    ]
