"""Many nodes on this machine whose device is simulated: no Python, no model, no picture.

For measuring what the cluster itself costs (scripts/bench_cluster.py, tests). Each node is a real
beam with the real cluster and engine applications on its own loopback address; only the worker
behind the engine's port is baguette_engine_simulated, and says so wherever it is seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from launcher.control import Control
from launcher.erlang import Atom, Target
from launcher.nodes import Cluster, Launch, claim, node_name, start, start_one
from launcher.processes import Process, Refused, end
from launcher.progress import Progress
from launcher.waiting import CONNECT_SECONDS, become_ready, uninterrupted

EXPERTS = 8
SIZE_MIB = 1200
STOP_PATIENCE = 10.0
SETTLE_SECONDS = 180.0
# A plan is agreed on for two seconds before anything moves; longer stillness is rest.
REST_SECONDS = 5.0
LOOK_SECONDS = 0.5
Figures = dict[str, Any]


@dataclass(frozen=True)
class Device:
    """What every node's device is like; times in microseconds unless they say otherwise.

    `more` are further keys of baguette_engine_simulated_settings.
    """

    batch_us: int = 20_000
    row_us: int = 5_000
    load_ms: int = 1_000
    experts: int = EXPERTS
    size_mib: int = SIZE_MIB
    spare: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    def settings(self, nodes: int) -> dict[str, Any]:
        """Settings of baguette_engine for a cluster of so many nodes.

        There is memory for each node's share of the experts and for `spare` more: with one, a node
        can leave.
        """
        share = -(-self.experts // nodes) + self.spare
        model = {"experts": self.experts, "size_mib": self.size_mib}
        times = {"batch_us": self.batch_us, "row_us": self.row_us, "load_ms": self.load_ms}
        device = {"model": model, **times, **self.more}
        return {
            "device": (Atom("simulated"), device),
            "python": "no Python: the device is simulated",
            "memory_mib": share * self.size_mib,
        }


class Fleet:
    """Simulated nodes that run; the control node speaks with the first of them."""

    def __init__(self, cluster: Cluster, launch: Launch, control: Control) -> None:
        self.cluster = cluster
        self.launch = launch
        self.control = control

    def figures(self) -> list[Figures]:
        """What every node that can be reached counts about itself (baguette_figures)."""
        self.control.ask("figures")
        nodes: list[Figures] = self.control.answer("figures")["nodes"]
        return [figures for figures in nodes if not figures["silent"]]

    def at_rest(
        self,
        nodes: int,
        tell: Callable[[str], None] = lambda text: None,
        rest_seconds: float = REST_SECONDS,
    ) -> list[Figures]:
        """Figures of `nodes` nodes, once all see each other and nothing has moved for a while."""
        deadline = time.monotonic() + SETTLE_SECONDS
        before: Figures = {}
        since = time.monotonic()
        while True:
            now = self.figures()
            joined = sum(f["joined"] and f["linked"] == nodes - 1 for f in now)
            if joined < nodes or len(now) != nodes or _standing(now) != before:
                before, since = _standing(now), time.monotonic()
            if time.monotonic() - since >= rest_seconds:
                return now
            if time.monotonic() > deadline:
                raise Refused(
                    f"{nodes} simulated nodes did not come to rest in {SETTLE_SECONDS:.0f} s: "
                    f"{len(now)} answer, {joined} hold what they should (logs: {self.cluster.run})"
                )
            tell(f"{joined} of {nodes} nodes hold their share")
            time.sleep(LOOK_SECONDS)

    def stop_node(self, index: int) -> None:
        """An orderly stop: the node says goodbye and ends."""
        if end([self.cluster.nodes[index]], STOP_PATIENCE):
            raise Refused(f"{node_name(index)} would not end; its log: {self.cluster.log(index)}")

    def start_node(self, index: int) -> None:
        """Start a node that was stopped."""
        process = start_one(self.cluster, self.launch, index, again=True)
        if process is None:
            raise Refused(f"{node_name(index)} did not start; its log: {self.cluster.log(index)}")
        self.cluster.nodes[index] = process
        self.cluster.save()

    def simulate(self, index: int, **changes: Any) -> None:
        """Change one node's device while it runs, for example speed=0.1 for a straggler."""
        with Control(self.target(index), f"control-{index}") as control:
            control.connect(CONNECT_SECONDS)
            control.ask("simulate", changes=changes)
            control.answer("simulated")

    def target(self, index: int) -> Target:
        """A node as something to speak with."""
        return self.cluster.target_of(index)


@contextmanager
def fleet(
    port: int, nodes: int, device: Device, progress: Progress, **engine: Any
) -> Iterator[Fleet]:
    """`nodes` simulated nodes that are ready; gone afterwards, and with us if we end before.

    `engine` are further settings of baguette_engine.
    """
    launch = Launch(nodes, None, engine={**device.settings(nodes), **engine})
    with cluster_of(Cluster(port, mode="simulated"), launch, progress) as running:
        yield running


@contextmanager
def cluster_of(cluster: Cluster, launch: Launch, progress: Progress) -> Iterator[Fleet]:
    """A cluster that is ready; gone afterwards, and with us if we end before."""
    guard = os.pipe()
    try:
        launch = replace(launch, guard=guard[0])
        with claim(cluster, launch.nodes):
            start(cluster, launch)
            with Control(cluster.target()) as control:
                control.connect(CONNECT_SECONDS)
                become_ready(cluster, control, launch.nodes, progress)
                yield Fleet(cluster, launch, control)
    finally:
        progress.close()
        with uninterrupted():
            cluster.stop(STOP_PATIENCE)
        for fd in guard:
            os.close(fd)


def _standing(figures: list[Figures]) -> Figures:
    """What stands still at rest: the plan and, where the device is simulated, what it has moved."""
    names = ("loads", "unloads")
    return {f["node"]: (f["plan"], [expert(f).get(name) for name in names]) for f in figures}


def expert(figures: Figures) -> dict[str, Any]:
    """A node's expert worker."""
    worker: dict[str, Any] = next(w for w in figures["workers"] if w["kind"] == "expert")
    return worker


def seconds_to_ready(figures: list[Figures], processes: list[Process]) -> list[float]:
    """From each process' start to the end of its node's last load; nodes that load nothing aside.

    Node and we read the same clock: they are on this machine.
    """
    began = {node_name(i): process.began() for i, process in enumerate(processes)}
    loaded = {f["node"]: expert(f)["loaded_at_ms"] / 1000 for f in figures}
    return [at - began[node] for node, at in loaded.items() if at]
