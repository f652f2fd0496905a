"""Many pictures at once: what a cluster draws a second, and what it adds to what devices compute.

Sections, each on clusters of its own on this machine:
  concurrent  1 to 64 pictures at once on 8 real nodes, with and without joining calls into one
              batch, against the same pictures one after another in this process
  scaling     2 to 8 real nodes; 2 to 64 nodes with simulated devices against the ideal
  lockstep    the pictures of a node as one request, or each at its own step
  links       round trips of 1, 10 and 45 ms between nodes, against what they must cost
  peers       one node that holds everything and serves request by request; random choice among
              replicas against measured choice, with a slow replica among them
  failover    one of two replicas is killed under load

Simulated devices compute nothing: they answer after a declared time, and a figure of theirs is of
the cluster, never of a GPU. Called by `make bench-throughput` (55 minutes; --small takes one and a
half, and its figures mean nothing). Prints Markdown tables, writes out/bench_throughput.json and,
but for --small, plots of it. PORT and MODEL come from the environment, as for scripts/cluster.py;
ports up to PORT + 3 are used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from baguette.files import check_writable
from launcher import (
    command_line,
    plots,
    throughput_concurrent,
    throughput_failover,
    throughput_links,
    throughput_lockstep,
    throughput_peers,
    throughput_scaling,
)
from launcher.addresses import DEFAULT_PORT
from launcher.machine_use import machine
from launcher.options import ROOT, BadOption, Model, Options
from launcher.picture import write_record
from launcher.progress import Progress
from launcher.throughput import Bench, Record
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_throughput.json"
PLOTS = ROOT / "out" / "plots"
Section = tuple[Callable[[Bench], Record], Callable[[Record], list[str]]]
SECTIONS: dict[str, Section] = {
    "concurrent": (throughput_concurrent.measure, throughput_concurrent.markdown),
    "scaling": (throughput_scaling.measure, throughput_scaling.markdown),
    "lockstep": (throughput_lockstep.measure, throughput_lockstep.markdown),
    "links": (throughput_links.measure, throughput_links.markdown),
    "peers": (throughput_peers.measure, throughput_peers.markdown),
    "failover": (throughput_failover.measure, throughput_failover.markdown),
}
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_throughput.py
  .venv/bin/python scripts/bench_throughput.py --only scaling,links
  .venv/bin/python scripts/bench_throughput.py --only scaling --nodes 8 64
  PORT=9400 .venv/bin/python scripts/bench_throughput.py --small --output /tmp/small.json
"""


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--nodes", type=int, nargs="+", help="of scaling: clusters of these sizes")
    parser.add_argument("--small", action="store_true", help="a little of everything, no figures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    parser.add_argument("--plots", type=Path, default=PLOTS, help="where its plots go, as SVG")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args))


def _checked(args: argparse.Namespace) -> int:
    wanted = args.only.split(",")
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        raise BadOption(
            f"--only got {unknown[0][:40]!r} but expected some of {', '.join(SECTIONS)}"
        )
    sizes = sorted({row.nodes for row in throughput_scaling.Sizes().simulated})
    if args.nodes and not set(args.nodes) <= set(sizes):
        raise BadOption(f"--nodes got {args.nodes} but expected some of {sizes}")
    check_writable(args.output)
    interruptible()
    # Again and again: half an hour is not lost with the last minutes of it.
    write = partial(write_record, path=args.output)
    record = bench(Options.read(os.environ), wanted, args.small, write, args.nodes)
    drawn = [] if args.small else plots.write(plots.of(record), args.plots)
    print("\n".join(os.path.relpath(path) for path in (args.output, *drawn)))
    return 0


def bench(
    options: Options,
    wanted: list[str],
    small: bool,
    write: Callable[[Record], None] = lambda _: None,
    nodes: Sequence[int] | None = None,
) -> Record:
    """Section by section; each prints its tables when it is done, and all there is is written."""
    model = Model.read(options.model_dir)
    progress = Progress()
    port = options.port or DEFAULT_PORT
    place = Bench(port, options.model_dir, model, small, progress, nodes=nodes)
    record: Record = {"machine": machine(), "load_before": os.getloadavg()[0], "small": small}
    try:
        for name in wanted:
            measure, markdown = SECTIONS[name]
            progress.line(f"--- {name}")
            keep = partial(_keep, record, name, write)
            keep(measure(replace(place, keep=keep)))
            progress.close()
            print("\n" + "\n".join(markdown(record[name])) + "\n", flush=True)
    finally:
        progress.close()
    return record


def _keep(record: Record, name: str, write: Callable[[Record], None], part: Record) -> None:
    record[name] = part
    write(record)


if __name__ == "__main__":
    sys.exit(main())
