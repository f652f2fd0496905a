"""Waiting for a cluster to become ready, and being interrupted in it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from launcher.control import Control, Event
from launcher.erlang import last_words
from launcher.nodes import Cluster, check_alive
from launcher.processes import Refused
from launcher.progress import Progress

CONNECT_SECONDS = 60.0
READY_SECONDS = 180.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def become_ready(cluster: Cluster, control: Control, nodes: int, progress: Progress) -> None:
    """Until all nodes are linked and every expert has a holder; says at once when a node dies."""
    control.ask("ready", nodes=nodes, deadline_ms=int(READY_SECONDS * 1000))
    missing = "the nodes"
    for event in _readiness(cluster, control):
        check_alive(cluster)
        if event["event"] == "quiet":
            progress.waiting(f"waiting for {missing} (logs: {cluster.run})")
            continue
        missing = _missing(event, nodes)
        if event["event"] == "readiness" and event["nodes"] < nodes:
            progress.phase("starting nodes", event["nodes"], nodes)
        elif event["event"] == "readiness":
            progress.phase("starting nodes", nodes, nodes, stays=True)
            if event["experts"]:
                progress.phase("loading experts", event["ready"], event["experts"])
    progress.phase("loading experts", event["ready"], event["experts"], stays=True)


def _readiness(cluster: Cluster, control: Control) -> Iterator[Event]:
    """What the requesting node tells; a refusal comes with the end of that node's log."""
    try:
        yield from control.answers("ready")
    except Refused as refusal:
        log = cluster.log(0)
        raise Refused(f"{refusal}\nIts last lines (all: {log}):\n{last_words(log, 12)}") from None


def interruptible() -> None:
    """SIGTERM and SIGHUP end us as Ctrl-C does: through the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A clean-up is bounded in time and not interrupted by a second Ctrl-C."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _missing(event: Event, nodes: int) -> str:
    """What a cluster that is not ready lacks, as one node sees it."""
    if event["nodes"] < nodes:
        return f"{nodes - event['nodes']} of {nodes} nodes"
    if not event["experts"]:
        return "the model's directory to be read"
    if event["ready"] < event["experts"]:
        return f"{event['experts'] - event['ready']} of {event['experts']} experts"
    return "the text encoder, router and decoder"
