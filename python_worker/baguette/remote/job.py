"""One job from its submission to its end, whatever breaks on the way.

Called by `commands.over_http` and the remote commands. A job belongs to the node: a broken
connection loses nothing, the stream is taken up again after the last event that was seen
(Last-Event-ID), and a submission is repeated under the same Idempotency-Key, so that it is never
drawn twice. What fails is tried again for PATIENCE seconds, then given up with a sentence.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from baguette.errors import ClusterRefused
from baguette.remote.node import BUSY, UNAVAILABLE, Node, NodeLost, NodeRefused, segment
from baguette.remote.sse import Event
from baguette.text import printable

PATIENCE, PAUSE = 60.0, 1.0
ENDS = ("completed", "failed", "cancelled")
GONE_ON = (502, UNAVAILABLE, 504)
Job = dict[str, Any]
Say = Callable[[str], None]
T = TypeVar("T")

# What every reader of a job relies on, and of which kind it is.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "status": str,
    "request": dict,
    "step": int,
    "steps": int,
    "images": list,
}


class Patience:
    """How long something that does not work is tried again. `well` when it worked meanwhile."""

    def __init__(self, say: Say, seconds: float = PATIENCE) -> None:
        self._say = say
        self._seconds = seconds
        self._until: float | None = None

    def well(self) -> None:
        """From now on there is the whole time again."""
        self._until = None

    def again(self, error: ClusterRefused) -> None:
        """Wait before another try; raise `error` when there is to be none."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
            self._say(f"{str(error).rstrip('.')}; trying again for {self._seconds:.0f} s")
        pause = getattr(error, "after", None) or PAUSE
        if now + pause > self._until:
            raise error
        time.sleep(pause)

    def until_answered(self, ask: Callable[[], T], busy: bool = False) -> T:
        """The answer of `ask`; with `busy` a full queue is waited for as well."""
        while True:
            try:
                return ask()
            except NodeLost as error:
                self.again(error)
            except NodeRefused as error:
                if error.status not in (*GONE_ON, *((BUSY,) if busy else ())):
                    raise
                self.again(error)


def submit(node: Node, request: dict[str, Any], say: Say) -> Job:
    """The job of this request; an interrupt meanwhile cancels what may have been taken."""
    key = {"Idempotency-Key": uuid.uuid4().hex}

    def ask() -> Job:
        return checked(node, node.ask("POST", "/v1/jobs", request, key))

    try:
        return Patience(say).until_answered(ask, busy=True)
    except KeyboardInterrupt:
        cancel(node, ask()["id"])  # whether it was taken is not known: under this key it is now
        raise


def look(node: Node, job_id: str) -> Job:
    """The job as the node knows it."""
    return checked(node, node.ask("GET", f"/v1/jobs/{segment(job_id)}"))


def cancel(node: Node, job_id: str) -> Job | None:
    """Stop its work; what is over stays as it is."""
    answer = node.ask("DELETE", f"/v1/jobs/{segment(job_id)}")
    return None if answer is None else checked(node, answer)


def follow(node: Node, job_id: str, see: Callable[[Event], None], say: Say) -> Job:
    """The finished job; `see` is given every event before its last one, each once."""
    path, last, patience = f"/v1/jobs/{segment(job_id)}/events", None, Patience(say)
    while True:
        try:
            for event in node.events(path, last):
                patience.well()
                last = event.id if event.id is not None else last
                if event.name in (*ENDS, "resync"):
                    job = checked(node, event.value)
                    if job["status"] in ENDS:
                        return job
                see(event)
            raise NodeLost(f"{node.url} broke off the events of job {job_id}")
        except (NodeLost, NodeRefused) as error:
            if isinstance(error, NodeRefused) and error.status not in GONE_ON:
                raise
            try:
                patience.again(error)
            except ClusterRefused:
                raise ClusterRefused(
                    f"{node.url} has not answered for {PATIENCE:.0f} s and job {job_id} is not "
                    f"finished; it goes on when the node is back: `python -m baguette remote watch "
                    f"{job_id}` follows it"
                ) from None


def finished(node: Node, job: Job) -> Job:
    """The job itself when it was completed; ClusterRefused says how else it ended."""
    if job["status"] == "completed":
        return job
    if job["status"] == "cancelled":
        raise ClusterRefused(f"job {job['id']} was cancelled: ask again for another")
    error = job.get("error")
    detail = error.get("detail") if isinstance(error, dict) else None
    raise ClusterRefused(
        printable(detail) if detail else f"job {job['id']} failed and {node.url} does not say why"
    )


def checked(node: Node, value: Any) -> Job:
    """A job with everything that is relied on; NodeRefused where that is no job at all."""
    if not isinstance(value, dict):
        raise node.odd("something that is no job")
    for name, kind in FIELDS.items():
        if not isinstance(value.get(name), kind):
            raise node.odd(f"a job without its {name}")
    if printable(value["id"], 100) != value["id"]:
        raise node.odd("a job whose id is no word")
    return value
