"""What happens in a cluster, told as it happens: a thread that reads one node's event stream.

Called by `commands.top`. When the node is lost it goes on with the next of those it heard of; a
node without the stream is asked again and again instead. It dies with its process, and tells
nothing after `close`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from baguette.errors import BadInput, ClusterRefused
from baguette.remote.node import Node, NodeLost, NodeRefused
from baguette.remote.place import Place, read_place

JOBS = "/v1/jobs?limit=20"
AGAIN_SECONDS, POLL_SECONDS = 1.0, 2.0
NOT_FOUND = 404
MAX_NODES = 256
Told = tuple[str, Any]  # an event's name and value; `node` says whose, `trouble` why there is none


class Feed(threading.Thread):
    """Puts what is told into `told` and calls `wake`."""

    def __init__(self, node: Node, wake: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._wake = wake
        self._token = node.token
        self._places: list[Place] = [node.place]
        self._closed = threading.Event()

    def run(self) -> None:
        """Until closed: one node after the other."""
        turn = 0
        while not self._closed.is_set():
            node = Node(self._places[turn % len(self._places)], self._token)
            try:
                for event in look(node, self._closed):
                    self._tell(event)
            except ClusterRefused as error:
                self._tell(("trouble", str(error)))
                turn += isinstance(error, NodeLost)
            self._closed.wait(AGAIN_SECONDS)

    def close(self) -> None:
        """Nothing is told any more."""
        self._closed.set()

    def _tell(self, event: Told) -> None:
        if not self._closed.is_set():
            if event[0] in ("snapshot", "cluster"):
                self._places = known(self._places, event[1])
            self.told.put(event)
            self._wake()


def look(node: Node, closed: threading.Event) -> Iterator[Told]:
    """Jobs and snapshot at first, then everything new; ends with an error."""
    yield "jobs", node.ask("GET", JOBS)
    yield "node", node.url
    try:
        for event in node.events("/v1/stream"):
            yield event.name, event.value
    except NodeRefused as error:
        if error.status != NOT_FOUND:
            raise
        yield from _asked_again_and_again(node, closed)
    raise NodeLost(f"{node.url} broke off its events")


def _asked_again_and_again(node: Node, closed: threading.Event) -> Iterator[Told]:
    while not closed.wait(POLL_SECONDS):
        yield "cluster", node.ask("GET", "/v1/cluster")
        yield "jobs", node.ask("GET", JOBS)


def known(before: list[Place], snapshot: Any) -> list[Place]:
    """The nodes that can be turned to: the first one, then all of the snapshot with HTTP."""
    nodes = snapshot.get("nodes") if isinstance(snapshot, dict) else None
    urls = [n.get("url") for n in nodes or () if isinstance(n, dict)][:MAX_NODES]
    found = before[:1]
    for url in urls:
        if isinstance(url, str):
            try:
                place = read_place("url", url)
            except BadInput:
                continue  # one that cannot be turned to
            found += [] if place.url in (p.url for p in found) else [place]
    return found
