"""`generate.py --cluster NODE`: a running cluster as the package's generate command asks one.

Called by the repository's generate.py, which hands `connect` to the package: dependencies point
from here to there. A cluster is asked with the secret of one that runs on this machine, or of the
node of a larger one here. The generation is cancelled when we die (launcher/control.py).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from baguette.commands.progress import Progress
from baguette.errors import BadInput, ClusterRefused
from launcher import member, nodes
from launcher.addresses import DEFAULT_PORT
from launcher.control import Control
from launcher.erlang import Target
from launcher.processes import Refused

CONNECT_SECONDS, READY_SECONDS = 10.0, 5.0
_NODE = re.compile(r"(?:baguette@)?(?P<host>\d{1,3}(?:\.\d{1,3}){3})(?::(?P<port>\d{4,5}))?")


class Asked:
    """A cluster that answers; lives as long as its control node."""

    def __init__(self, node: str, control: Control) -> None:
        self.node = node
        self._control = control
        control.ask("ready", nodes=1, deadline_ms=int(READY_SECONDS * 1000))
        self.num_experts = int(control.answer("ready")["experts"])

    def draw(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """One finished generation; each step is told when its experts were asked."""
        with _refusals():
            self._control.ask("generate", request=request, watch=True)
            for event in self._control.answers("done"):
                if event["event"] == "step":
                    progress(event["step"] - 1, event["steps"], event["experts"])
                elif event["event"] == "done":
                    result: dict[str, Any] = event["result"]
                    return result
        raise ClusterRefused("the generation ended without a result")


@contextlib.contextmanager
def connect(named: str) -> Iterator[Asked]:
    """The cluster of the node `named`: HOST, baguette@HOST or HOST:PORT."""
    target = _target(named)
    with contextlib.ExitStack() as stack:
        with _refusals():
            control = stack.enter_context(Control(target, name="generate"))
            control.connect(CONNECT_SECONDS)
            asked = Asked(target.node, control)
        yield asked


def _target(named: str) -> Target:
    match = _NODE.fullmatch(named)
    if match is None:
        raise BadInput(f"--cluster got {named!r} but expected a node, e.g. 127.0.0.2")
    node, port = f"baguette@{match['host']}", match["port"] and int(match["port"])
    with _refusals():
        for cluster in map(nodes.Cluster.load, _ports(port)):
            alive = [i for i, one in enumerate(cluster.nodes) if one.alive()]
            if node in map(nodes.node_name, alive):
                return replace(cluster.target(), node=node)
        joined = member.running()
    if joined is not None and port in (None, joined.port):
        return replace(joined.target(), node=node)
    raise ClusterRefused(
        f"no cluster with a node {node} runs here: `make up` starts one, `make join` joins one, "
        "`make status` shows it"
    )


def _ports(port: int | None) -> list[int]:
    """Of the clusters started here; the usual one first."""
    if port is not None:
        return [port]
    found = sorted(int(path.parent.name) for path in nodes.RUN.glob("*/cluster.json"))
    return sorted(found, key=lambda one: one != DEFAULT_PORT)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """The launcher's refusals as the package's."""
    try:
        yield
    except Refused as refusal:
        raise ClusterRefused(str(refusal)) from None
