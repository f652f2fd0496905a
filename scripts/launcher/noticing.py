"""How fast a cluster of simulated nodes notices a node that freezes or is killed, and has it back.

Read from the nodes' own logs, whose lines carry microseconds. Of each trial counts the moment at
which the last of the others had noticed. For scripts that measure (launcher.simulated.Fleet).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from launcher.comings import said, spread, until_all
from launcher.nodes import node_name
from launcher.processes import Refused, wait_gone
from launcher.simulated import Fleet

FROZEN_SECONDS = 3.0  # longer than it takes to be suspected, shorter than to be called gone


def freezes(fleet: Fleet, nodes: int, trials: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """SIGSTOP of each node but the first in turn; SIGCONT once everybody else suspects it."""
    suspected, back, judged = [], [], 0
    for trial in range(trials):
        tell(f"freeze {trial + 1} of {trials}")
        index = 1 + trial % (nodes - 1)
        node = fleet.cluster.nodes[index]
        began = time.time()
        node.signal(signal.SIGSTOP)
        try:
            suspected.append(_link(fleet, nodes, index, "suspect", began))
            time.sleep(max(0.0, began + FROZEN_SECONDS - time.time()))
        finally:
            woken = time.time()
            node.signal(signal.SIGCONT)
        back.append(_link(fleet, nodes, index, "up", woken))
        judged += _judged(fleet, nodes, index, began)
    return {
        "trials": trials,
        "seconds_to_suspect": spread(suspected),
        "seconds_to_be_up_again": spread(back),
        "suspected_by_who_was_frozen": judged,
    }


def kills(fleet: Fleet, nodes: int, trials: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """SIGKILL of each node but the first in turn; started again once everybody has it as gone."""
    down, gone, whole = [], [], []
    for trial in range(trials):
        tell(f"kill {trial + 1} of {trials}")
        index = 1 + trial % (nodes - 1)
        began = time.time()
        fleet.cluster.nodes[index].signal(signal.SIGKILL)
        down.append(_link(fleet, nodes, index, "down", began))
        gone.append(_member(fleet, nodes, index, "gone", began))
        if wait_gone([fleet.cluster.nodes[index]], 1.0):
            raise Refused(f"{node_name(index)} outlived SIGKILL")
        began = time.time()
        fleet.start_node(index)
        whole.append(_member(fleet, nodes, index, "joined", began))
        fleet.at_rest(nodes)
    return {
        "trials": trials,
        "seconds_to_down": spread(down),
        "seconds_to_gone": spread(gone),
        "seconds_from_start_to_one_view": spread(whole),
    }


def false_alarms(fleet: Fleet, nodes: int, since: float) -> int:
    """How often anybody has suspected anybody since then."""
    pairs = [(i, j) for i in range(nodes) for j in range(nodes) if i != j]
    found = [said(fleet, i, "link", node_name(j), "suspect", since) for i, j in pairs]
    return sum(at is not None for at in found)


def _link(fleet: Fleet, nodes: int, index: int, state: str, began: float) -> float:
    return _noticed(fleet, nodes, index, "link", state, began)


def _member(fleet: Fleet, nodes: int, index: int, state: str, began: float) -> float:
    return _noticed(fleet, nodes, index, "member", state, began)


def _noticed(fleet: Fleet, nodes: int, index: int, what: str, state: str, began: float) -> float:
    """Seconds until the last of the others said so."""
    others = [i for i in range(nodes) if i != index]
    name = node_name(index)
    return until_all(lambda: [said(fleet, i, what, name, state, began) for i in others]) - began


def _judged(fleet: Fleet, nodes: int, index: int, began: float) -> int:
    peers = [node_name(i) for i in range(nodes) if i != index]
    return sum(said(fleet, index, "link", n, "suspect", began) is not None for n in peers)
