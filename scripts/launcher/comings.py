"""How fast a cluster of simulated nodes notices who comes and who goes: joins, goodbyes, kills.

Read from the nodes' own logs, whose lines carry milliseconds, so that nothing is asked of a node
while it is measured. Called by scripts/bench_cluster.py.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from launcher import node_log
from launcher.nodes import node_name
from launcher.processes import Refused, wait_gone
from launcher.simulated import Fleet

SECONDS = 60.0


def comings(
    fleet: Fleet, nodes: int, joins: int, kills: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The last node leaves in order, or is killed, and comes again; in turn, `joins` times."""
    last = nodes - 1
    sees, boots, goes = [], [], []
    for turn in range(joins):
        tell(f"join {turn + 1} of {joins}")
        if turn < kills:
            goes.append(_killed(fleet, nodes))
        else:
            fleet.stop_node(last)
        fleet.start_node(last)
        sees.append(_sees_all(fleet, nodes))
        boots.append(_booted(fleet, last))
    return {
        "joins": joins,
        "kills": kills,
        "seconds_to_see_all": _spread(sees),
        "of_these_to_boot": _spread(boots),
        "seconds_until_gone_everywhere": _spread(goes),
    }


def _spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and the most of several seconds."""
    worst = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return {
        "median": round(median(values), 3),
        "p95": round(worst, 3),
        "most": round(max(values), 3),
    }


def _killed(fleet: Fleet, nodes: int) -> float:
    """SIGKILL; seconds until the last of the others has struck it off its list."""
    name = node_name(nodes - 1)
    began = time.time()
    fleet.cluster.nodes[nodes - 1].signal(signal.SIGKILL)
    wait_gone([fleet.cluster.nodes[nodes - 1]], SECONDS)
    others = range(nodes - 1)
    gone = _until_all(lambda: [_said(fleet, i, "member", name, "gone", began) for i in others])
    return gone - began


def _sees_all(fleet: Fleet, nodes: int) -> float:
    """Seconds from the start of the last node's process until all the others are on its list."""
    last = nodes - 1
    began = fleet.cluster.nodes[last].began()
    others = [node_name(i) for i in range(last)]
    seen = _until_all(lambda: [_said(fleet, last, "member", n, "joined", began) for n in others])
    return seen - began


def _booted(fleet: Fleet, index: int) -> float:
    """Seconds from the process' start to its first word: what Erlang itself takes."""
    began = fleet.cluster.nodes[index].began()
    for event in node_log.events(fleet.cluster.log(index)):
        if node_log.seconds(event) >= began:
            return node_log.seconds(event) - began
    raise Refused(f"{node_name(index)} says nothing; its log: {fleet.cluster.log(index)}")


def _until_all(look: Callable[[], list[float | None]]) -> float:
    """The latest of what is looked for, once all of it is there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = look()
        there = [at for at in found if at is not None]
        if len(there) == len(found):
            return max(there)
        time.sleep(0.05)
    raise Refused(f"a node that came or went was not noticed everywhere within {SECONDS:.0f} s")


def _said(fleet: Fleet, index: int, what: str, peer: str, state: str, since: float) -> float | None:
    """When this node first said so of that peer, if it did since then."""
    return node_log.first_said(fleet.cluster.log(index), what, peer, state, since)
