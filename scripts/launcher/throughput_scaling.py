"""Throughput by the number of nodes: real ones on this machine's cores, and simulated devices.

A section of scripts/bench_throughput.py. Real nodes share the cores there are, so theirs says what
spreading costs, not what machines add. Of simulated devices it is held against the ideal: the
pictures a second if every device had been computing all the time with the batches that it got. So
the share of the ideal is the share of the time in which devices computed, and what is missing is
what spreading, queues and the way between nodes leave idle. Extra calls (asked besides or again)
count as computing, so they are told too.

`skew` is how unevenly routing asks for experts (docs/internals/simulated.md): 0 asks all alike.

Under load times are dilated, or these cores could not serve so many beams: a device takes so many
times what it would. That flatters the share (the cluster's own milliseconds weigh less against a
call) and leaves alone CPU per picture. A step beyond its computing is measured afterwards, at the
device's own times and with one picture at a time, so that none waits for another. Beside that
stands how long the machine stood still at most meanwhile, which is nobody's fault here and in the
figure all the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from launcher.control import Control
from launcher.hiccups import Hiccups
from launcher.loads import (
    PROMPT,
    Load,
    Order,
    check,
    draw,
    extra_share,
    rate,
    requesters,
    seconds,
    step_ms,
    steps_between,
)
from launcher.machine_use import TOO_BUSY, cpu_seconds, watched
from launcher.machine_use import rate as wire_rate
from launcher.nodes import Cluster, Launch
from launcher.simulated import Figures, Fleet, cluster_of, expert, fleet
from launcher.spreads import percentile, shown, spread, table
from launcher.throughput import ADVANCE_US, Bench, Record, described, device

TOP_K = 2
MANY = 1_000_000
# Simulated nodes that ask, at most: with fewer it is decoding on them that is measured.
ASKING = 16


@dataclass(frozen=True)
class Row:
    """One cluster of simulated nodes, and how many pictures of how many steps it draws.

    What 64 beams decide for their devices takes most of two cores: times are longer.
    """

    nodes: int
    skew: float = 0.0
    dilation: int = 16
    concurrent: int = 12  # a node
    steps: int = 5
    alone: int = 60
    alone_steps: int = 30
    warm_seconds: float = 20.0
    seconds: float = 60.0


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    real: tuple[int, ...] = (2, 4, 8)
    real_images: int = 48
    real_rounds: int = 3
    simulated: tuple[Row, ...] = (
        *(Row(2), Row(4), Row(8), Row(8, skew=0.5), Row(16)),
        Row(64, dilation=512, concurrent=4, steps=10, warm_seconds=180.0, seconds=120.0),
    )


SMALL_ROW = Row(
    2, dilation=2, concurrent=4, steps=3, alone=2, alone_steps=5,
    warm_seconds=1.0, seconds=3.0,
)  # fmt: skip
SMALL = Sizes(real=(), simulated=(SMALL_ROW,))
CONCURRENT = 16
# Of pictures that ask every expert: their prompt is then known wherever it may be asked.
WARM_STEPS = 2


def measure(bench: Bench) -> Record:
    """Real nodes first, then simulated ones; each row is kept when it is there."""
    sizes = SMALL if bench.small else Sizes()
    record: Record = {"device": described(device()), "real": [], "simulated": []}
    for nodes in filter(bench.wants, sizes.real):
        record["real"].append(_real(bench, nodes, sizes))
        bench.keep(record)
    for row in (row for row in sizes.simulated if bench.wants(row.nodes)):
        record["simulated"].append(_simulated(bench, row))
        bench.keep(record)
    return record


def _real(bench: Bench, nodes: int, sizes: Sizes) -> Record:
    """Sixteen pictures at a time, with Python and the model."""
    asking = min(nodes, 4)
    request = {"prompt": bench.model.example_prompt, "deterministic": False}
    launch = Launch(nodes, bench.model_dir, engine={"max_running": CONCURRENT}, requesters=asking)
    bench.progress.line(f"{nodes} real nodes:")
    cluster = Cluster(bench.port, mode="bench")
    with (
        cluster_of(cluster, launch, bench.progress) as running,
        requesters(running, asking) as controls,
    ):
        bench.settled(running)
        draw(controls, Order(request, CONCURRENT, CONCURRENT))
        order = Order(request, CONCURRENT, sizes.real_images)
        rounds = [Load(controls, order).ended() for _ in range(sizes.real_rounds)]
    times = [seconds(picture) for pictures in rounds for picture in pictures]
    return {
        "nodes": nodes,
        "images_per_second": spread([rate(pictures) for pictures in rounds]),
        "image_seconds": {"p50": median(times), "p99": percentile(times, 99)},
    }


def _simulated(bench: Bench, row: Row) -> Record:
    nodes = row.nodes
    bench.progress.line(f"{nodes} simulated nodes, skew {row.skew}:")
    most = row.concurrent * nodes
    used = device(row.dilation, skew=row.skew)
    with (
        fleet(bench.port, nodes, used, bench.progress, max_running=most) as running,
        requesters(running, min(nodes, ASKING)) as controls,
    ):
        bench.settled(running)
        request = {"prompt": PROMPT, "steps": WARM_STEPS, "deterministic": False, "top_k": "full"}
        draw(controls, Order(request, nodes, 2 * nodes))
        loaded = watched(lambda: _loaded(running, controls, row))
        for index in range(nodes):
            running.simulate(index, speed=float(row.dilation), exact=True)
        # What nobody waits for any more is still computed at the times of before.
        draw(controls, Order(request, nodes, 2 * nodes))
        bench.settled(running)
        return {
            "nodes": nodes,
            "skew": row.skew,
            "dilation": row.dilation,
            "concurrent": most,
            "steps": row.steps,
            "loaded": loaded,
            "alone": watched(lambda: _alone(controls, row)),
        }


def _alone(controls: Sequence[Control], row: Row) -> Record:
    """One picture at a time: how long its steps take beyond what is computed for them."""
    request = {"prompt": PROMPT, "steps": row.alone_steps, "deterministic": False}
    with Hiccups() as hiccups:
        pictures = draw(controls[:1], Order(request, 1, row.alone))
    steps = [step for picture in pictures for step in step_ms(picture)]
    beyond = [took - computed - ADVANCE_US / 1000 for took, computed in steps]
    return {
        "steps": len(beyond),
        "stood_still_ms": hiccups.longest_ms,
        "beyond_ms": {
            "p50": round(median(beyond), 3),
            "p99": round(percentile(beyond, 99), 3),
            "most": round(max(beyond), 3),
        },
    }


def _loaded(running: Fleet, controls: Sequence[Control], row: Row) -> Record:
    """As many pictures at a time as keep every device busy; looked at between two moments."""
    request = {"prompt": PROMPT, "steps": row.steps, "deterministic": False}
    span = row.warm_seconds + row.seconds
    concurrent = row.concurrent * row.nodes
    # No picture twice: few would not ask for all experts alike.
    load = Load(controls, Order(request, concurrent, MANY, span, MANY))
    time.sleep(row.warm_seconds)  # until all are at different steps
    before, since, used = running.figures(), time.time(), cpu_seconds(running)
    time.sleep(row.seconds)
    after, until, used = running.figures(), time.time(), cpu_seconds(running) - used
    pictures = load.ended()
    check(pictures)
    steps = steps_between(pictures, since, until)
    images = steps / row.steps
    first = {figures["node"]: figures for figures in before}
    looks = [(first[now["node"]], now) for now in after]
    busy = [
        _grown(*look, "busy_us") / (1000 * (look[1]["at_ms"] - look[0]["at_ms"])) for look in looks
    ]
    batches = sum(_grown(*look, "batches") for look in looks)
    gossip = [wire_rate(*look).get("gossip_bytes", 0.0) for look in looks]
    share = sum(busy) / len(busy)
    times = [seconds(picture) for picture in pictures]
    return {
        "images_per_second": round(images / (until - since), 3),
        "ideal_images_per_second": round(images / (until - since) / share, 3),
        "share_of_ideal": round(share, 4),
        "least_busy_device": round(min(busy), 4),
        "most_busy_device": round(max(busy), 4),
        "rows_per_batch": round(TOP_K * steps / max(batches, 1), 2),
        "extra_calls": round(extra_share(pictures, TOP_K), 4),
        "cpu_ms_per_image": round(1000 * used / max(images, 1), 2),
        "cpu_ms_per_step": round(1000 * used / max(steps, 1), 3),
        "gossip_bytes_per_second": {
            "median": round(median(gossip)),
            "most": round(max(gossip)),
        },
        "image_seconds": {"p50": round(median(times), 3), "p99": round(percentile(times, 99), 3)},
    }


def _grown(before: Figures, after: Figures, name: str) -> int:
    """What a node's expert worker counted between two looks."""
    grown: int = expert(after)[name] - expert(before)[name]
    return grown


def markdown(record: Record) -> list[str]:
    """Two tables; a row that was measured on a machine that was too busy says so."""
    lines = []
    if record["real"]:
        rows = [
            (
                row["nodes"],
                shown(row["images_per_second"]),
                f"{row['image_seconds']['p50']:.2f}",
                f"{row['image_seconds']['p99']:.2f}",
            )
            for row in record["real"]
        ]
        lines += table(
            ("real nodes, 16 pictures at a time", "images/s", "p50 s an image", "p99"), rows
        )
        lines.append("")
    heads = (
        "simulated nodes",
        "skew",
        "times dilated by",
        "pictures at a time (steps)",
        "images/s",
        "of the ideal",
        "busiest, idlest device",
        "rows a batch",
        "extra calls",
        "CPU ms an image (a step)",
        "a step beyond its computing, p50 / p99 ms (the machine stood still)",
        "gossip B/s a node",
        "machine busy",
    )
    lines += table(heads, [_row(row) for row in record["simulated"]])
    lines.append("")
    lines.append(
        f"Device: {record['device']}, times dilated as told. A figure is void where "
        f"the machine was over {TOO_BUSY:.0f} % busy. {os.cpu_count()} cores."
    )
    return lines


def _row(row: Record) -> list[str]:
    load, alone = row["loaded"], row["alone"]
    beyond = alone["beyond_ms"]
    cells = [
        f"{load['images_per_second']:.3g}",
        f"{100 * load['share_of_ideal']:.0f} %",
        f"{100 * load['most_busy_device']:.0f} %, {100 * load['least_busy_device']:.0f} %",
        f"{load['rows_per_batch']:.2g}",
        f"{100 * load['extra_calls']:.1f} %",
        f"{load['cpu_ms_per_image']:.0f} ({load['cpu_ms_per_step']:.1f})",
        f"{beyond['p50']:.2f} / {beyond['p99']:.2f} ({alone['stood_still_ms']:.0f})",
        f"{load['gossip_bytes_per_second']['median']}",
        f"{load['machine_busy_percent']:.0f} %, {alone['machine_busy_percent']:.0f} %",
    ]
    # What was measured with one picture at a time and what under load are void each for itself.
    void = [load["void"]] * 6 + [alone["void"], load["void"], False]
    return [
        str(row["nodes"]),
        f"{row['skew']:g}",
        str(row["dilation"]),
        f"{row['concurrent']} ({row['steps']})",
        *(f"void ({cell})" if bad else cell for cell, bad in zip(cells, void, strict=True)),
    ]
