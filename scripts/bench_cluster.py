"""What the cluster itself costs, on many simulated nodes on this machine.

Every node is a real beam with the real cluster and engine; only its device is simulated (no Python,
no model: nothing is drawn), so these figures are of gossip, placement and start, never of pictures.
For each size of cluster, in this order: the time from start to READY of all nodes at once, the
traffic of a cluster at rest, what moves when a node leaves, what moves when one joins. Where the
machine was over 80 % busy while it was measured, a row is void and says so. Called by
`make bench-cluster`. Prints a table and writes out/bench_cluster.json. PORT comes from the
environment, as for scripts/cluster.py.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from baguette.files import check_writable
from launcher import command_line
from launcher.nodes import DEFAULT_PORT
from launcher.options import MAX_NODES, ROOT, BadOption, Options
from launcher.picture import write_record
from launcher.progress import Progress
from launcher.simulated import Device, Figures, Fleet, expert, fleet, seconds_to_ready
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_cluster.json"
SIZES = (8, 64)
SECONDS = 20.0
TOO_BUSY = 80.0
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_cluster.py
  .venv/bin/python scripts/bench_cluster.py --nodes 4 --seconds 5
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
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args.nodes, args.seconds, args.output))


def _checked(sizes: list[int], seconds: float, output: Path) -> int:
    for nodes in sizes:
        if not 2 <= nodes <= MAX_NODES:
            raise BadOption(f"--nodes got {nodes} but expected 2..{MAX_NODES}")
    if not 1 <= seconds <= 3600:
        raise BadOption(f"--seconds got {seconds} but expected 1..3600")
    check_writable(output)
    return bench(Options.read(os.environ).port or DEFAULT_PORT, sizes, seconds, output)


def bench(port: int, sizes: list[int], seconds: float, output: Path) -> int:
    """One cluster after the other, every measure on each."""
    device = Device()
    clusters = []
    interruptible()
    progress = Progress()
    try:
        for nodes in sizes:
            progress.line(f"{nodes} simulated nodes:")
            clusters.append(measured(port, nodes, device, seconds, progress))
    finally:
        progress.close()
    record = {
        "simulated": True,
        "device": {"simulated": device.settings(max(sizes))["device"][1]},
        "seconds_of_rest": seconds,
        "clusters": clusters,
        "machine": machine(),
    }
    write_record(record, output)
    tell(record, output)
    return 0


def measured(port: int, nodes: int, device: Device, seconds: float, progress: Progress) -> Record:
    """One cluster, started for this and stopped again."""
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


def watched(measure: Callable[[], Record]) -> Record:
    """A measure with how busy the machine was meanwhile, and whether that makes it void."""
    psutil.cpu_percent()
    found = measure()
    busy = found.get("machine_busy_percent", psutil.cpu_percent())
    return {**found, "machine_busy_percent": busy, "void": busy > TOO_BUSY}


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


def cpu_seconds(running: Fleet) -> float:
    """What all beams have used of the CPU, the kernel's work for them included."""
    times = [psutil.Process(process.pid).cpu_times() for process in running.cluster.nodes]
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


def machine() -> Record:
    """What this was measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "system": platform.platform(),
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


def _cell(found: Record, value: Callable[[Record], Any]) -> str:
    shown = value(found)
    text = "-" if shown is None else f"{shown}"
    return f"({text})" if found["void"] else text


if __name__ == "__main__":
    sys.exit(main())
