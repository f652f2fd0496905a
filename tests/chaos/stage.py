"""The cluster that a chaos run plays on: started once, played on by several seeds, gone afterwards.

Real workers on the tiny model or on paris-mini, or simulated ones. Also the only place that looks
at processes and at what the nodes count about themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import baguette
from baguette.families.paris.tiny import build
from baguette.pipeline import Pipeline
from chaos.operations import DEADLINE_SECONDS, Client
from chaos.plan import KINDS, POISON, REQUESTERS, Kind
from launcher import nodes
from launcher.erlang import child_environment
from launcher.nodes import Cluster, Launch
from launcher.processes import Process, Refused
from launcher.progress import Progress
from launcher.simulated import Device, Figures, Fleet, cluster_of
from launcher.waiting import CONNECT_SECONDS, READY_SECONDS
from live import ROOT, TAG, free_port, leftovers, tagged

SETTLE_SECONDS = 180.0
LOOK_SECONDS = 0.25
# Room for three nodes to be away; loads and calls short, so that a run is many steps.
DEVICE = Device(batch_us=2000, row_us=500, load_ms=100, more={"poison": POISON, "restart_ms": 100})
SIMULATED_SHARES = 3


class Stage:
    """A running cluster, and what a run needs of it."""

    def __init__(self, kind: Kind, fleet: Fleet, tag: str, pipeline: Pipeline | None) -> None:
        self.kind = kind
        self.fleet = fleet
        self.tag = tag
        self.pipeline = pipeline  # None: the device is simulated
        self.locks = [threading.Lock() for _ in range(kind.nodes)]
        self.clients: list[Client] = []
        self.unfit = False  # a seed failed on it: what it is like now, nobody knows

    @property
    def cluster(self) -> Cluster:
        return self.fleet.cluster

    def doubt(self, indexes: list[int]) -> None:
        """These nodes die now, or have just been started: who asks them looks first."""
        for client in self.clients:
            client.doubtful = client.doubtful or client.node in indexes

    def restart(self, index: int) -> None:
        """Start a node that has ended; what it said before is kept beside its log."""
        log = self.cluster.log(index)
        log.rename(log.with_suffix(f".log.{len(list(log.parent.glob(f'{log.name}*')))}"))
        self.fleet.start_node(index)

    def settle(self) -> tuple[float, list[Figures]]:
        """Seconds and figures once every node sees all others and holds its share, and rests.

        TimeoutError says what is still wrong.
        """
        begun, control = time.monotonic(), self.fleet.control
        control.connect(CONNECT_SECONDS)
        control.ask("ready", nodes=self.kind.nodes, deadline_ms=int(READY_SECONDS * 1000))
        control.answer("ready")
        while True:
            figures = self.fleet.figures()
            wrong = unsettled(figures, self.kind.nodes)
            seconds = time.monotonic() - begun
            if not wrong:
                return round(seconds, 1), figures
            if seconds > SETTLE_SECONDS:
                raise TimeoutError(f"after {seconds:.0f} s still {'; '.join(wrong)}")
            time.sleep(LOOK_SECONDS)

    def look(self, figures: list[Figures]) -> list[dict[str, Any]]:
        """What each node counts, and the resident memory of its processes by their ids."""
        by_node = {entry["node"]: entry for entry in figures}
        found = []
        for index in range(len(self.cluster.nodes)):
            own = by_node.get(nodes.node_name(index), {})
            rss = {
                kind: {"pid": process.pid, "kib": resident_kib(process)}
                for kind, process in self.cluster.processes(index).items()
            }
            counted = {name: own.get(name) for name in ("memory_kib", "processes", "running")}
            found.append({"node": index, "rss": rss, **counted})
        return found

    def processes(self) -> dict[str, Any]:
        """Workers of each node, and whatever carries our tag and belongs to nobody."""
        known, workers = set(), []
        for node in self.cluster.nodes:
            family = node.descendants()
            known |= {node, *family}
            workers.append(sorted(filter(None, map(worker_kind, family))))
        for control in [self.fleet.control, *(client.control for client in self.clients)]:
            process = Process.of(control.popen.pid)
            known |= {process, *(process.descendants() if process else [])}
        strangers = [process for process in tagged(self.tag) if process not in known]
        return {"workers": workers, "strangers": [command(p) for p in strangers if p.alive()]}


def unsettled(figures: list[Figures], count: int) -> list[str]:
    """What is not yet as it should be, by node."""
    wrong = [f"{count - len(figures)} nodes do not answer"] if len(figures) != count else []
    for entry in figures:
        seen = (entry["joined"], entry["linked"], len(entry["members"]), entry["running"])
        if seen != (True, count - 1, count, 0):
            names = ("joined", "linked", "members", "running")
            wrong.append(f"{entry['node']} has {dict(zip(names, seen, strict=True))}")
        wrong += [
            f"the {worker['kind']} worker of {entry['node']} has calls"
            for worker in entry["workers"]
            if worker.get("in_flight") or worker.get("waiting")
        ]
    return wrong


def worker_kind(process: Process) -> str | None:
    """Whether a process is an "expert" or a "pipeline" worker, or neither."""
    _, found, kind = command(process).partition(" baguette.worker ")
    return kind.split()[0] if found else None


def command(process: Process) -> str:
    """Its command line; empty when it has ended."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def resident_kib(process: Process) -> int:
    """Its resident memory."""
    try:
        fields = Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@contextlib.contextmanager
def staged(model: str, directory: Path) -> Iterator[Stage]:
    """A cluster of that kind; its logs stay in `directory`, of its processes none (checked)."""
    kind, tag = KINDS[model], uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="baguette-chaos-") as scratch, _own(directory, tag):
        model_dir = _model(kind, Path(scratch))
        engine: dict[str, Any] = {"generation_ms": int(DEADLINE_SECONDS * 1000)}
        if model_dir is None:
            engine |= DEVICE.settings(-(-DEVICE.experts // SIMULATED_SHARES))
        else:
            engine |= _poisonable(Path(scratch) / "fault")
        launch = Launch(kind.nodes, model_dir, engine=engine, requesters=REQUESTERS)
        cluster = Cluster(free_port(kind.nodes), mode="chaos")
        try:
            with cluster_of(cluster, launch, Progress()) as fleet:
                pipeline = None if model_dir is None else baguette.load(model_dir, threads=1)
                yield Stage(kind, fleet, tag, pipeline)
        finally:
            left = leftovers(tag)
        if left:
            raise Refused(f"processes were left when the cluster had ended: {left}")


@contextlib.contextmanager
def _own(directory: Path, tag: str) -> Iterator[None]:
    """A run directory of our own, and our tag on every process we start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "RUN", directory / "run")
        patch.setenv(TAG, tag)
        yield


def _poisonable(fault: Path) -> dict[str, Any]:
    """Settings with which the real workers die of one prompt (tests/faulty)."""
    fault.write_text(json.dumps({"do": "die", "on": "velocity", "prompt": POISON}))
    return {
        "python": str(ROOT / "tests" / "faulty" / "python"),
        "child_env": [
            *child_environment(),
            ("BAGUETTE_CORES", str(nodes.RUN / "cores")),
            ("BAGUETTE_FAULT", str(fault)),
        ],
    }


def _model(kind: Kind, scratch: Path) -> Path | None:
    if kind.name == "simulated":
        return None
    if kind.name == "mini":
        return ROOT / "weights" / "paris-mini"
    return build(scratch / "tiny", num_experts=kind.experts)
