"""A cluster of nodes with simulated devices, each on a machine of `machines.network`.

As launcher.simulated, but with a network between the nodes that can be cut (wires.py). One control
node stands on each machine and speaks with the node there, whatever is cut.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launcher import node_log
from launcher.control import Control
from launcher.drawing import Drawing, Request, Result
from launcher.erlang import Atom, Target, environment, member_flags, write_config, write_cookie
from launcher.processes import Process
from launcher.simulated import Device, Figures, expert
from launcher.waiting import CONNECT_SECONDS
from live import PATIENCE, ROOT, TAG
from machines import Machine

View = dict[str, Any]


@dataclass
class Node:
    """One node and its machine, with a control node that looks and one that has it draw."""

    machine: Machine
    popen: subprocess.Popen[bytes]
    looking: Control
    drawing: Control

    @property
    def name(self) -> str:
        return f"baguette@{self.machine.address}"

    def signal(self, number: signal.Signals) -> None:
        process = Process.of(self.popen.pid)
        assert process is not None
        process.signal(number)

    def kill(self) -> None:
        """The node dies without a word."""
        self.end()

    def end(self) -> None:
        """Nothing of it is left."""
        self.popen.kill()
        self.popen.wait()
        for control in (self.looking, self.drawing):
            control.__exit__()

    def figures(self) -> Figures:
        """What the node counts and believes; nobody else is asked."""
        self.looking.ask("own_figures")
        (own,) = self.looking.answer("figures")["nodes"]
        figures: Figures = own
        return figures

    def moves(self) -> int:
        """Loads and unloads since its start."""
        worker = expert(self.figures())
        moved: int = worker["loads"] + worker["unloads"]
        return moved

    def links(self) -> dict[str, str]:
        """Its members, itself included, and whether it may ask them; each stands there once."""
        members = self.figures()["members"]
        found = {member["node"]: member["link"] for member in members}
        assert len(found) == len(members), members
        return found

    def submit(self, request: Request) -> Drawing:
        """Ask for a picture; returns when the engine has taken it."""
        return Drawing(self.drawing, request)

    def draw(self, request: Request) -> Result:
        """Ask for a picture and wait for it."""
        return self.submit(request).result()

    def said(self, what: str, peer: Node, state: str, since: float) -> float | None:
        """When its log first said so of a peer after that moment."""
        log = self.machine.home / "run" / "node.log"
        return node_log.first_said(log, what, peer.name, state, since)

    def until_said(self, what: str, peer: Node, state: str, since: float) -> float:
        """Seconds from that moment until its log says so of the peer."""
        return until(lambda: self.said(what, peer, state, since)) - since


def until(look: Any, seconds: float = PATIENCE) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"it did not come true: {look}"
        time.sleep(0.05)


def agreed(nodes: list[Node]) -> list[Figures]:
    """Everybody's figures once each lists each once and up, and all hold what one plan says."""

    def look() -> list[Figures]:
        everybody = {node.name: "up" for node in nodes}
        if any(node.links() != everybody for node in nodes):
            return []
        found = [node.figures() for node in nodes]
        plans = {figures["plan"] for figures in found}
        return found if len(plans) == 1 and all(f["joined"] for f in found) else []

    settled: list[Figures] = until(look)
    return settled


def incarnations(nodes: list[Node]) -> list[dict[str, int]]:
    """As each node sees them."""
    return [
        {member["node"]: member["incarnation"] for member in node.figures()["members"]}
        for node in nodes
    ]


@contextlib.contextmanager
def cluster_on(machines: list[Machine], device: Device) -> Iterator[list[Node]]:
    """A node on each machine, once all agree; gone afterwards."""
    cookie = secrets.token_hex(32)
    nodes: list[Node] = []
    try:
        for machine in machines:
            configure(machine, machines, device, cookie)
        popens = [boot(machine) for machine in machines]
        nodes += [attach(m, p) for m, p in zip(machines, popens, strict=True)]
        agreed(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.end()


def boot_again(node: Node) -> None:
    """The node that was killed, started anew; it takes its place for who ends them all."""
    node.popen = boot(node.machine)
    again = attach(node.machine, node.popen)
    node.looking, node.drawing = again.looking, again.drawing


def configure(machine: Machine, machines: list[Machine], device: Device, cookie: str) -> None:
    """Write what the machine's node reads at its start."""
    run = machine.home / "run"
    run.mkdir()
    write_cookie(run, cookie)
    write_config(
        run / "node.config",
        {
            "baguette_cluster": {"peers": [m.address for m in machines]},
            "baguette_engine": {
                "model_dir": Atom("undefined"),
                "pipeline": Atom("eager"),
                "threads": 1,
                "probe_file": str(run / "probes.json"),
                "child_env": [],
                **device.settings(len(machines)),
            },
            "baguette": {"out_dir": str(run), "guard": Atom("stdin")},
            "baguette_web": {"port": Atom("undefined")},
        },
    )


def boot(machine: Machine) -> subprocess.Popen[bytes]:
    """Start the machine's node; it ends when its standard input is closed, so with us."""
    run = machine.home / "run"
    flags = member_flags(machine.address, machine.port, [run / "node.config"])
    with machine.inside(), (run / "node.log").open("ab") as log:
        return subprocess.Popen(
            [*flags, "+S", "1:1"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment(run), TAG: machine.tag},
            cwd=ROOT,
            start_new_session=True,
        )


def attach(machine: Machine, popen: subprocess.Popen[bytes]) -> Node:
    """A node that was booted, with control nodes that have reached it."""
    run = machine.home / "run"
    target = Target(f"baguette@{machine.address}", machine.port, run, run / "node.log")
    with machine.inside():
        controls = [Control(target, name) for name in ("looking", "drawing")]
    for control in controls:
        control.connect(CONNECT_SECONDS)
    return Node(machine, popen, *controls)
