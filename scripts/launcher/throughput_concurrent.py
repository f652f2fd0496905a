"""1, 4, 16 and 64 pictures at once on real nodes, with calls joined into batches and without.

A section of scripts/bench_throughput.py. Two clusters of eight nodes with Python and the model
stand side by side and take turns: one as it is (`batch_rows` auto), one that sends every call alone
(1). They share this machine's cores with the third side, the same model in this process, which
draws the same pictures one after another, and as one request whose images go through every expert
together. The first cluster is asked for such requests as well, by each node for its share and by
one node for all: there all that there is for an expert at a step is there at once, so what that
gains is the ceiling of joining what comes when it comes. No request is `deterministic`: those
share no batch. No two requests in the drawing have the same prompt.

What the clusters' processes use of the CPU meanwhile is told by kind: where the cores are never
idle, what is drawn a second is what one picture's step costs all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from launcher.control import Control
from launcher.erlang import Atom
from launcher.loads import Order, Request, draw, numbered, rate, requesters
from launcher.machine_use import used, watched
from launcher.nodes import Cluster, Launch
from launcher.processes import Process, Refused
from launcher.simulated import cluster_of
from launcher.spreads import shown, spread, table
from launcher.throughput import Bench, Record

JOINED, ALONE = "joined", "one by one"
SHARES, REQUEST = "cluster, a request a node", "cluster, all as one request"
PROMPTS = 64
PROCESS, TOGETHER = "one process, one after another", "one process, all as one request"
Measure = Callable[[int, int], float]
ByKind = dict[str, list[Process]]


@dataclass(frozen=True)
class Side:
    """One of those compared: how it draws so many at a time, so many in all, and its processes.

    This process, which does nothing else, is not among them.
    """

    draw: Measure
    processes: ByKind = field(default_factory=dict)

    def measure(self, concurrent: int, images: int, steps: int) -> tuple[float, dict[str, float]]:
        """Images a second, and milliseconds of the CPU for an image's step by kind of process."""
        before = {kind: used(those) for kind, those in self.processes.items()}
        drawn = self.draw(concurrent, images)
        after = {kind: used(those) for kind, those in self.processes.items()}
        each = 1000 / (images * steps)
        return drawn, {kind: each * (after[kind] - before[kind]) for kind in after}


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    nodes: int = 8
    requesters: int = 4
    concurrent: tuple[int, ...] = (1, 4, 16, 64)
    # In a round: so many times as are drawn at once, so that for most of it so many are, but at
    # least and at most as many as this.
    waves: int = 4
    images: tuple[int, int] = (16, 64)
    rounds: int = 5
    threads: tuple[int, ...] = (1, 2)
    steps: int = 30


SMALL = Sizes(2, 1, (1, 4), 1, (4, 4), 1, (1,), 3)


def measure(bench: Bench) -> Record:
    """Every side in every round, for one number of pictures at once after the other."""
    sizes = SMALL if bench.small else Sizes()
    request = {
        "prompt": bench.model.example_prompt,
        "steps": sizes.steps,
        "deterministic": False,
    }
    with ExitStack() as stack:
        (joined, first), (alone, second) = (
            _cluster(bench, stack, sizes, number, request) for number in range(2)
        )
        sides = {
            JOINED: Side(_singly(joined, request), first),
            ALONE: Side(_singly(alone, request), second),
            SHARES: Side(_as_requests(joined, request, sizes.requesters), first),
            REQUEST: Side(_as_requests(joined, request, 1), first),
            **{
                f"{name}, {threads} thread{'s' * (threads > 1)}": Side(
                    in_process(bench, request, threads, name == TOGETHER)
                )
                for name in (PROCESS, TOGETHER)
                for threads in sizes.threads
            },
        }
        rows = watched(lambda: _rounds(bench, sides, sizes))
    return {"nodes": sizes.nodes, "model": bench.model.name, "rounds": sizes.rounds, **rows}


def _cluster(
    bench: Bench, stack: ExitStack, sizes: Sizes, number: int, request: Request
) -> tuple[Sequence[Control], ByKind]:
    """Who asks a cluster that is ready and has drawn, and its processes."""
    batch_rows = (Atom("auto"), 1)[number]
    bench.progress.line(f"{sizes.nodes} real nodes, batch_rows {batch_rows}:")
    cluster = Cluster(bench.port + number, mode="bench")
    asking = sizes.requesters
    most = max(sizes.concurrent)
    engine = {"batch_rows": batch_rows, "max_running": most}
    launch = Launch(sizes.nodes, bench.model_dir, engine=engine, requesters=asking)
    running = stack.enter_context(cluster_of(cluster, launch, bench.progress))
    controls: Sequence[Control] = stack.enter_context(requesters(running, asking))
    bench.settled(running)
    draw(controls, Order(request, asking, 2 * asking))
    of_nodes = [cluster.processes(index) for index in range(sizes.nodes)]
    kinds = dict.fromkeys(kind for of_node in of_nodes for kind in of_node)
    return controls, {kind: [one[kind] for one in of_nodes if kind in one] for kind in kinds}


def _singly(controls: Sequence[Control], request: Request) -> Measure:
    return lambda concurrent, images: rate(
        draw(controls, Order(request, concurrent, images, prompts=PROMPTS))
    )


def _as_requests(controls: Sequence[Control], request: Request, requests: int) -> Measure:
    """As many at once as so many requests of several images each, or of one, are."""

    def measure(concurrent: int, images: int) -> float:
        n = max(1, concurrent // requests)
        order = Order({**request, "n": n}, concurrent // n, images // n, prompts=PROMPTS)
        return n * rate(draw(controls, order))

    return measure


def in_process(bench: Bench, request: Request, threads: int, together: bool) -> Measure:
    """The model in this process; as many at once as are asked for if `together`, or each alone."""
    import torch

    import baguette
    from baguette.errors import BaguetteError

    try:
        pipeline = baguette.load(bench.model_dir, threads=1)
    except BaguetteError as error:
        raise Refused(f"{error}; MODEL=... names another directory") from None
    options = {name: value for name, value in request.items() if name != "prompt"}

    def draw_all(concurrent: int, images: int) -> float:
        torch.set_num_threads(threads)
        n = concurrent if together else 1
        began = time.monotonic()
        for seed in range(1, images + 1, n):
            prompt = numbered(request["prompt"], seed, PROMPTS)
            pipeline(pipeline.request(prompt, n=n, seed=seed, **options))
        return images / (time.monotonic() - began)

    return draw_all


def _rounds(bench: Bench, sides: dict[str, Side], sizes: Sizes) -> Record:
    names = list(sides)
    rates: Record = {}
    cpu: Record = {}
    for concurrent in sizes.concurrent:
        measured: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in names}
        images = _images(concurrent, sizes)
        for turn in range(sizes.rounds):
            for k in range(len(names)):
                name = names[(turn + k) % len(names)]
                bench.progress.waiting(f"{concurrent} at once, {name}")
                measured[name].append(sides[name].measure(concurrent, images, sizes.steps))
        rates[str(concurrent)] = {n: spread([drawn for drawn, _ in m]) for n, m in measured.items()}
        cpu[str(concurrent)] = {
            name: {
                kind: round(median(spent[kind] for _, spent in measured[name]), 3)
                for kind in side.processes
            }
            for name, side in sides.items()
            if side.processes
        }
    return {"images_per_second": rates, "cpu_ms_per_image_step": cpu}


def _images(concurrent: int, sizes: Sizes) -> int:
    least, most = sizes.images
    return max(least, concurrent, min(most, sizes.waves * concurrent))


def markdown(record: Record) -> list[str]:
    """Images a second, and what joining is worth."""
    found = record["images_per_second"]
    names = list(next(iter(found.values())))
    heads = (
        *("pictures at once", *names),
        *("joined / one by one", "a request a node / one by one"),
        "its ceiling: one request / one by one",
        *("one process' gain by one request", "joined / best single process"),
    )
    rows = []
    for concurrent, sides in found.items():
        medians = {name: sides[name]["median"] for name in names}
        single, together = (
            max(value for name, value in medians.items() if name.startswith(side))
            for side in (PROCESS, TOGETHER)
        )
        rows.append(
            (
                concurrent,
                *(shown(sides[name]) for name in names),
                f"{medians[JOINED] / medians[ALONE]:.2f}",
                *(f"{medians[side] / medians[ALONE]:.2f}" for side in (SHARES, REQUEST)),
                f"{together / single:.2f}",
                f"{medians[JOINED] / single:.2f}",
            )
        )
    return [
        *table(heads, rows),
        "",
        f"Images a second, {record['model']} on {record['nodes']} nodes of this machine, median "
        f"and least to most of {record['rounds']} rounds. Machine "
        f"{record['machine_busy_percent']:.0f} % busy.",
        "",
        *_cpu(record["cpu_ms_per_image_step"]),
    ]


def _cpu(found: Record) -> list[str]:
    """What a step of an image costs the clusters' processes."""
    kinds = list(next(iter(next(iter(found.values())).values())))
    heads = ("pictures at once", "CPU ms of an image's step", *kinds, "in all")
    rows = [
        (concurrent, name, *(f"{each[kind]:.2f}" for kind in kinds), f"{sum(each.values()):.2f}")
        for concurrent, sides in found.items()
        for name, each in sides.items()
    ]
    return table(heads, rows)
