"""What a fault costs a picture: killed and stopped workers and nodes, comings, goings, a straggler.

Clusters of real nodes with real Python workers and a tiny untrained model are started on this
machine and harmed in the middle of a generation, at one step after the other (launcher/trials.py).
Where a device is simulated the row says so. Called by `make bench-reliability` (about 35 minutes).
Prints a table in Markdown and writes every trial to out/bench_reliability.json. PORT comes from the
environment, as for scripts/cluster.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baguette.families.paris.tiny import build
from baguette.files import check_writable
from launcher import command_line, trials
from launcher.addresses import DEFAULT_PORT
from launcher.machine_use import machine
from launcher.nodes import Cluster, Launch
from launcher.options import ROOT, BadOption, Options
from launcher.picture import write_record
from launcher.progress import Progress
from launcher.simulated import Device, Fleet, cluster_of
from launcher.trials_ground import Ground, Record, spread
from launcher.trials_straggler import DEVICE, NODES, REQUEST, straggler
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_reliability.json"
TRIALS = 20
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_reliability.py
  .venv/bin/python scripts/bench_reliability.py --faults expert_worker_killed,node_killed
  .venv/bin/python scripts/bench_reliability.py --trials 3 --output /tmp/three.json
"""
STEPS = 30
MANY = {"prompt": "any words at all", "steps": STEPS, "n": 16, "seed": 3}
ONE = {**MANY, "n": 1}


@dataclass(frozen=True, eq=False)  # each is a kind of its own
class Field:
    """A kind of cluster that trials are made on; `lasts` so many, then another is started."""

    nodes: int
    experts: int
    device: Device | None = None  # None: Python, and the tiny model
    lasts: int | None = None
    memory_mib: int | None = None  # None: what the machine has


# Everybody can be lost; all but one cannot; a third of three is still to come; each has a twin.
REPLICAS = Field(nodes=9, experts=3)
# Who stays takes over what leaves, in the end all of it: then nobody is left to be harmed.
LEAVING = Field(nodes=9, experts=3, lasts=5)
SOLE = Field(nodes=trials.SOLE_EXPERTS + 1, experts=trials.SOLE_EXPERTS, memory_mib=trials.SOLE_MIB)
GROWING = Field(nodes=3, experts=3, device=Device(experts=3, load_ms=300))
TWINS = Field(nodes=NODES, experts=DEVICE.experts, device=DEVICE)


@dataclass(frozen=True)
class Fault:
    """A row: what is done, on which cluster, with which request."""

    title: str
    field: Field
    request: dict[str, Any]
    trial: Callable[[Ground, int], Record]


def _sole(on_missing: str) -> Callable[[Ground, int], Record]:
    return lambda ground, step: trials.sole_holder_killed(ground, step, on_missing)


GROWN = {"prompt": "a simulated picture", "steps": 250, "top_k": "full", "seed": 3}
FAULTS = {
    "expert_worker_killed": Fault(
        "expert worker: kill -9", REPLICAS, MANY, trials.expert_worker_killed
    ),
    "node_killed": Fault("node that is asked: kill -9", REPLICAS, MANY, trials.node_killed),
    "requester_killed": Fault(
        "another requester: kill -9", REPLICAS, MANY, trials.requester_killed
    ),
    "expert_worker_stopped": Fault(
        "expert worker: SIGSTOP", REPLICAS, ONE, trials.expert_worker_stopped
    ),
    "node_stopped": Fault("node that is asked: SIGSTOP", REPLICAS, ONE, trials.node_stopped),
    "pipeline_worker_killed": Fault(
        "own pipeline worker: kill -9", REPLICAS, MANY, trials.pipeline_worker_killed
    ),
    "node_leaves": Fault("node that is asked leaves", LEAVING, MANY, trials.node_leaves),
    "sole_holder_killed": Fault("only holder: kill -9 of its node", SOLE, MANY, _sole("wait")),
    "sole_holder_killed_degrade": Fault(
        "the same, on_missing: degrade", SOLE, MANY, _sole("degrade")
    ),
    "sole_holder_killed_fail": Fault("the same, on_missing: fail", SOLE, MANY, _sole("fail")),
    "node_joins": Fault("node joins (simulated devices)", GROWING, GROWN, trials.node_joins),
    "straggler": Fault(
        "ten times slower (simulated devices)", TWINS, REQUEST, lambda g, _: straggler(g)
    ),
}


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each fault (20)")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"some of {', '.join(FAULTS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args))


def _checked(args: argparse.Namespace) -> int:
    names = args.faults.split(",")
    for name in names:
        if name not in FAULTS:
            raise BadOption(f"--faults got {name} but expected some of {', '.join(FAULTS)}")
    if not 1 <= args.trials <= 1000:
        raise BadOption(f"--trials got {args.trials} but expected 1..1000")
    check_writable(args.output)
    port = Options.read(os.environ).port or DEFAULT_PORT
    return bench(port, names, args.trials, args.output)


def bench(port: int, names: list[str], count: int, output: Path) -> int:
    """Every fault so many times; each kind of cluster is started once, or as often as it takes.

    Interrupted, it still tells of the faults that were done.
    """
    interruptible()
    progress = Progress()
    found: dict[str, list[Record]] = {}
    with tempfile.TemporaryDirectory(prefix="baguette-") as folder:
        try:
            for field in dict.fromkeys(FAULTS[name].field for name in names):
                for name, records in _on(field, port, names, count, Path(folder), progress):
                    found[name] = records
        finally:
            progress.close()
            if found:
                record = {"machine": machine(), "trials": found}
                write_record(record, output)
                tell(record, output)
    return 0


def _on(
    field: Field, port: int, names: list[str], count: int, folder: Path, progress: Progress
) -> Iterator[tuple[str, list[Record]]]:
    """The faults that are tried on this kind of cluster."""
    wanted = [name for name in names if FAULTS[name].field is field]
    if field.lasts is None:
        with _cluster(field, port, folder, progress) as fleet:
            for name in wanted:
                yield name, _trials(name, fleet, range(count), progress)
        return
    for name in wanted:
        records: list[Record] = []
        while len(records) < count:
            some = range(len(records), min(count, len(records) + field.lasts))
            with _cluster(field, port, folder, progress) as fleet:
                records += _trials(name, fleet, some, progress)
        yield name, records


@contextmanager
def _cluster(field: Field, port: int, folder: Path, progress: Progress) -> Iterator[Fleet]:
    model_dir = folder / f"tiny-{field.experts}"
    if field.device is not None:
        launch = Launch(field.nodes, None, engine=field.device.settings(field.nodes))
    else:
        if not model_dir.exists():
            build(model_dir, num_experts=field.experts)
        engine = {} if field.memory_mib is None else {"memory_mib": field.memory_mib}
        launch = Launch(field.nodes, model_dir, engine=engine)
    with cluster_of(Cluster(port, mode="bench"), launch, progress) as fleet:
        yield fleet


def _trials(name: str, fleet: Fleet, numbers: range, progress: Progress) -> list[Record]:
    """Trial after trial, each at another step; the last two steps are left out."""
    fault = FAULTS[name]
    ground = Ground(fleet, fault.request)
    records = []
    for number in numbers:
        progress.waiting(f"{fault.title}: trial {number + 1}")
        records.append(fault.trial(ground, 7 * number % (STEPS - 2)))
    return records


HEADS = (
    "fault",
    "trials",
    "detected, ms: p50 / p95 / max",
    "recovered, ms: p50 / p95 / max",
    "generations lost",
    "pictures changed",
    "extra calls",
)


def tell(record: Record, output: Path) -> None:
    """One row a fault, in Markdown."""
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for name, records in record["trials"].items():
        print(row(FAULTS[name].title, records))
    if "straggler" in record["trials"]:
        print(straggling(record["trials"]["straggler"]))
    here = record["machine"]
    print(f"\n{here['cores']} cores, {here['memory_mib']} MiB, {here['system']}; ", end="")
    print(f"every trial: {os.path.relpath(output)}")


def row(title: str, records: list[Record]) -> str:
    """What all trials of a fault came to."""
    ended = [record for record in records if not record["lost"]]
    extra = sum(record["extra_calls"] for record in ended)
    cells = [
        title,
        len(records),
        _spread(records, "detected_ms"),
        _spread(records, "recovered_ms"),
        len(records) - len(ended),
        sum(not record["same_pixels"] for record in ended),
        extra,
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _spread(records: list[Record], name: str) -> str:
    values = [record[name] for record in records if record.get(name) is not None]
    if not values:
        return "-"
    text = " / ".join(f"{value:.0f}" for value in spread(values).values())
    return text if len(values) == len(records) else f"{text} ({len(values)} of {len(records)})"


def straggling(records: list[Record]) -> str:
    """What the straggler's row does not say."""
    ratios = [record["p99_to_p50"] for record in records]
    rescued = [r["rescued_to_p50"] for r in records if r["rescued_to_p50"] is not None]
    shares = [record["extra_share"] for record in records]
    return (
        f"\nstraggler, {sum(record['steps'] for record in records)} steps: p99 of a step at most "
        f"{max(ratios):.2f} x p50 in each trial; {sum(r['rescued'] for r in records)} steps "
        f"rescued, at most {max(rescued, default=0):.2f} x p50; extra calls at most "
        f"{100 * max(shares):.1f} %"
    )


if __name__ == "__main__":
    sys.exit(main())
