"""What the cluster itself costs and does, on many nodes on this machine.

Most nodes are simulated: a real beam with the real cluster and engine, only its device is not (no
Python, no model: nothing is drawn), so those figures are of gossip, placement and start, never of
pictures. For each size of cluster: the time from start to READY of all nodes at once, the traffic
of a cluster at rest, what moves when a node leaves and when one joins. Then, on small clusters: how
fast comings and goings are noticed, and what placement expects of a step against what it takes. And
with Python and the model: the traffic of eight nodes, and `make join` part by part. Where the
machine was over 80 % busy meanwhile, a row of a cluster is void and says so. Called by `make
bench-cluster` (15 minutes). Prints tables and writes out/bench_cluster.json. PORT comes from the
environment, as for scripts/cluster.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from baguette.files import check_writable
from launcher import command_line
from launcher.addresses import DEFAULT_PORT
from launcher.comings import comings
from launcher.fleets import random_fleets
from launcher.machine_use import cpu_seconds, machine, rate, watched
from launcher.nodes import Cluster, Launch
from launcher.options import MAX_NODES, ROOT, BadOption, Options
from launcher.picture import write_record
from launcher.progress import Progress
from launcher.real_joins import real_joins
from launcher.simulated import (
    Device,
    Figures,
    Fleet,
    cluster_of,
    expert,
    fleet,
    seconds_to_ready,
)
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_cluster.json"
SIZES = (8, 64)
SECONDS = 20.0
REAL_NODES = 8
QUIET = 25.0
SETTLE_SECONDS = 60.0
JOINS, KILLS, FLEETS = 20, 5, 20
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_cluster.py
  .venv/bin/python scripts/bench_cluster.py --nodes 4 --seconds 5 --joins 3 --fleets 2
"""
Record = dict[str, Any]


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=SIZES, help="sizes (8 64)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of rest (20)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    parser.add_argument("--joins", type=int, default=JOINS, help="of one node (20)")
    parser.add_argument("--fleets", type=int, default=FLEETS, help="of random speeds (20)")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args))


def _checked(args: argparse.Namespace) -> int:
    sizes, seconds = args.nodes, args.seconds
    for nodes in sizes:
        if not 2 <= nodes <= MAX_NODES:
            raise BadOption(f"--nodes got {nodes} but expected 2..{MAX_NODES}")
    if not 1 <= seconds <= 3600:
        raise BadOption(f"--seconds got {seconds} but expected 1..3600")
    if min(args.joins, args.fleets) < 1:
        raise BadOption("--joins and --fleets are at least 1")
    check_writable(args.output)
    return bench(Options.read(os.environ), args)


def bench(options: Options, args: argparse.Namespace) -> int:
    """One cluster after the other, every measure on each."""
    port, seconds = options.port or DEFAULT_PORT, args.seconds
    device = Device()
    interruptible()
    progress = Progress()
    try:
        record = {
            "machine": machine(),
            "device": {"simulated": device.settings(max(args.nodes))["device"][1]},
            "seconds_of_rest": seconds,
            "real": real(port, options.model_dir, seconds, progress),
            "joins": real_joins(port, progress.waiting),
            **small(port, args.joins, args.fleets, progress),
            "clusters": [measured(port, n, device, seconds, progress) for n in args.nodes],
        }
    finally:
        progress.close()
    write_record(record, args.output)
    tell(record, args.output)
    return 0


def real(port: int, model_dir: Path, seconds: float, progress: Progress) -> Record:
    """Eight nodes with Python and the model, at rest."""
    progress.line(f"{REAL_NODES} real nodes:")
    launch = Launch(REAL_NODES, model_dir)
    with cluster_of(Cluster(port, mode="bench"), launch, progress) as running:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and not quiet():
            progress.waiting("waiting for the machine to be quiet")
        return {"nodes": REAL_NODES, **watched(lambda: at_rest(running, seconds, progress))}


def quiet() -> bool:
    """Whether this machine had little to do for five seconds: what was started has settled."""
    return psutil.cpu_percent(interval=5.0) < QUIET


def small(port: int, joins: int, fleets: int, progress: Progress) -> Record:
    """Who comes and goes, on eight simulated nodes; unequal machines, on five."""
    progress.line("8 simulated nodes, coming and going:")
    with fleet(port, 8, Device(), progress) as running:
        coming = comings(running, 8, joins, min(joins, KILLS), progress.waiting)
    progress.line("5 simulated nodes of unequal speed:")
    with fleet(port, 5, Device(), progress) as running:
        unequal = random_fleets(running, 5, fleets, progress.waiting)
    return {"comings": coming, "unequal": unequal}


def measured(port: int, nodes: int, device: Device, seconds: float, progress: Progress) -> Record:
    """One cluster, started for this and stopped again."""
    progress.line(f"{nodes} simulated nodes:")
    measures: list[tuple[str, Callable[[], Record]]] = []
    began = time.monotonic()
    with fleet(port, nodes, device, progress) as running:
        up = time.monotonic() - began
        measures = [
            ("start", lambda: started(running, nodes, up, progress)),
            ("rest", lambda: at_rest(running, seconds, progress)),
            ("leave", lambda: left(running, nodes, progress)),
            ("join", lambda: joined(running, nodes, progress)),
        ]
        return {"nodes": nodes, **{name: watched(measure) for name, measure in measures}}


def started(running: Fleet, nodes: int, up: float, progress: Progress) -> Record:
    """All nodes at once, on the cores there are: mostly the starting of beams is waited for."""
    figures = running.at_rest(nodes, progress.waiting)
    ready = seconds_to_ready(figures, running.cluster.nodes)
    return {
        "seconds_to_first_ready": round(min(ready), 2),
        "seconds_to_ready_median": round(median(ready), 2),
        "seconds_to_all_ready": round(max(ready), 2),
        "seconds_to_every_expert": round(up, 2),
        "loads": sum(expert(f)["loads"] for f in figures),
        "unloads": sum(expert(f)["unloads"] for f in figures),
        "memory_mib": resident_mib(running),
    }


def resident_mib(running: Fleet) -> int:
    """What all beams together hold of this machine's memory."""
    pids = [process.pid for process in running.cluster.nodes]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) >> 20


def at_rest(running: Fleet, seconds: float, progress: Progress) -> Record:
    """Nothing is asked of anybody: what goes over the wire all the same, and the CPU it takes."""
    progress.waiting(f"measuring {seconds:.0f} s of rest")
    before = {f["node"]: f for f in running.figures()}
    psutil.cpu_percent()
    used = cpu_seconds(running)
    time.sleep(seconds)
    busy = psutil.cpu_percent()
    used = cpu_seconds(running) - used
    rates = [rate(before[f["node"]], f) for f in running.figures() if f["node"] in before]
    names = [name for name in rates[0] if all(name in r for r in rates)]
    cores = os.cpu_count() or 1
    return {
        "machine_busy_percent": busy,
        "nodes_cpu_percent": round(100 * used / seconds / cores, 1),
        **{
            name: {
                "median": round(median(r[name] for r in rates), 1),
                "mean": round(sum(r[name] for r in rates) / len(rates), 1),
                "most": round(max(r[name] for r in rates), 1),
            }
            for name in names
        },
    }


def left(running: Fleet, nodes: int, progress: Progress) -> Record:
    """The last node stops in order: what the others load and unload for it."""
    before = running.figures()
    begun = time.monotonic()
    running.stop_node(nodes - 1)
    after = running.at_rest(nodes - 1, progress.waiting)
    return {**moved(before, after), "seconds_to_rest": round(time.monotonic() - begun, 1)}


def joined(running: Fleet, nodes: int, progress: Progress) -> Record:
    """It starts again, as a new member: what moves, and how long it takes to be READY."""
    before = running.figures()
    running.start_node(nodes - 1)
    after = running.at_rest(nodes, progress.waiting)
    newcomer = [f for f in after if f["node"] not in {b["node"] for b in before}]
    ready = seconds_to_ready(newcomer, running.cluster.nodes)
    return {
        **moved(before, after),
        "newcomer_loads": sum(expert(f)["loads"] for f in newcomer),
        "seconds_to_ready": round(ready[0], 2) if ready else None,
    }


def moved(before: list[Figures], after: list[Figures]) -> Record:
    """Loads and unloads between two looks, by the nodes that are there at the second."""
    known = {f["node"]: expert(f) for f in before}
    return {
        name: sum(expert(f)[name] - known.get(f["node"], {}).get(name, 0) for f in after)
        for name in ("loads", "unloads")
    }


ROWS: tuple[tuple[str, str, Callable[[Record], Any]], ...] = (
    ("READY after start, median, s", "start", lambda r: r["seconds_to_ready_median"]),
    ("READY after start, last node, s", "start", lambda r: r["seconds_to_all_ready"]),
    ("memory of all nodes, MiB", "start", lambda r: r["memory_mib"]),
    ("at rest: bytes out a node a second", "rest", lambda r: r["wire_bytes"]["median"]),
    ("  the mean of all nodes", "rest", lambda r: r["wire_bytes"]["mean"]),
    ("  the most of any node", "rest", lambda r: r["wire_bytes"]["most"]),
    ("at rest: packets out a node a second", "rest", lambda r: r["wire_messages"]["median"]),
    ("  of these gossip's bytes", "rest", lambda r: r.get("gossip_bytes", {}).get("median")),
    ("  of these gossip's messages", "rest", lambda r: r.get("gossip_messages", {}).get("median")),
    ("at rest: machine busy, %", "rest", lambda r: r["machine_busy_percent"]),
    ("at rest: of it these nodes, %", "rest", lambda r: r["nodes_cpu_percent"]),
    ("a node leaves: loads", "leave", lambda r: r["loads"]),
    ("a node leaves: unloads", "leave", lambda r: r["unloads"]),
    ("a node joins: loads", "join", lambda r: r["loads"]),
    ("  of these on the newcomer", "join", lambda r: r["newcomer_loads"]),
    ("a node joins: unloads", "join", lambda r: r["unloads"]),
    ("a node joins: READY after, s", "join", lambda r: r["seconds_to_ready"]),
)


def tell(record: Record, output: Path) -> None:
    """The table; a value measured on a machine that was too busy stands in brackets."""
    for line in [*_real(record), *_comings(record["comings"]), *_unequal(record["unequal"])]:
        print(line)
    clusters = record["clusters"]
    heads = "".join(f"{c['nodes']:>6} nodes" for c in clusters)
    print(f"{'simulated devices':<38}{heads}")
    for title, part, value in ROWS:
        print(f"{title:<38}" + "".join(f"{_cell(c[part], value):>12}" for c in clusters))
    void = [(c["nodes"], p, c[p]) for c in clusters for p in c if p != "nodes" and c[p]["void"]]
    for nodes, part, found in void:
        busy = found["machine_busy_percent"]
        print(f"void: {part} of {nodes} nodes, the machine was {busy:.0f} % busy (in brackets)")
    print(f"{record['machine']['cores']} cores; no Python, no model; {os.path.relpath(output)}")


def _real(record: Record) -> list[str]:
    rest = record["real"]
    return [
        f"{rest['nodes']} real nodes at rest: {_cell(rest, lambda r: r['wire_bytes']['median'])} "
        f"bytes out a node a second, machine {rest['machine_busy_percent']:.0f} % busy",
        "`make join` to READY, seconds from the command to each part:",
        *(
            f"  {name:<14}" + "  ".join(f"{part} {at:.1f}" for part, at in parts.items())
            for name, parts in record["joins"].items()
        ),
    ]


def _comings(found: Record) -> list[str]:
    sees, boots = found["seconds_to_see_all"], found["of_these_to_boot"]
    goes = found["seconds_until_gone_everywhere"]
    return [
        f"a joiner sees all 8 nodes after {sees['median']:.2f} s (p95 {sees['p95']:.2f}; of this "
        f"{boots['median']:.2f} for Erlang to start; {found['joins']} joins)",
        f"a killed node is off every list after {goes['median']:.1f} s "
        f"(most {goes['most']:.1f}; {found['kills']} kills)",
    ]


def _unequal(found: Record) -> list[str]:
    ratio = found["measured_to_expected"]
    return [
        f"a step on {len(found['fleets'])} random fleets of 5: measured to expected "
        f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"
    ]


def _cell(found: Record, value: Callable[[Record], Any]) -> str:
    shown = value(found)
    text = "-" if shown is None else f"{shown}"
    return f"({text})" if found["void"] else text


if __name__ == "__main__":
    sys.exit(main())
