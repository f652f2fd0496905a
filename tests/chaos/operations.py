"""Clients: each asks one node for its pictures, one after the other, and writes down what comes.

A client is a control node of its own and the thread that reads it. Where its node was killed it
waits until that node can draw again, and goes on with its next picture.
"""

from __future__ import annotations

import queue
import time
import traceback
from typing import Any

from chaos.history import Entry, History
from chaos.plan import Generation
from launcher.control import Control, Event
from launcher.erlang import Target
from launcher.nodes import index_of
from launcher.waiting import CONNECT_SECONDS, READY_SECONDS

ENDS = {"done", "failed"}
DEADLINE_SECONDS = 120.0  # of a generation: the engine's setting in these clusters
# An end that has not come this long after its deadline does not come.
LOST_SECONDS = DEADLINE_SECONDS + 30.0
KEPT = {  # of an event, what the checker and a reader want
    "step": ("step",),
    "state": ("state",),
    "failover": ("expert", "step", "from", "to", "why"),
    "hedge": ("expert", "step", "from", "to"),
    "waiting": ("reason", "expert", "during"),
    "degraded": ("step", "image", "lost", "mass"),
}


class Client:
    """One who asks for pictures. `node` is the number of the node asked."""

    def __init__(self, number: int, node: int, target: Target, history: History) -> None:
        self.number = number
        self.node = node
        self.history = history
        self.control = Control(target, f"chaos-client-{number}")
        self.doubtful = False  # its node may have died since it was last heard

    def connect(self) -> None:
        """Until its node can be reached and can draw."""
        self.control.connect(CONNECT_SECONDS)
        self.control.ask("ready", nodes=1, deadline_ms=int(READY_SECONDS * 1000))
        self.control.answer("ready")
        self.doubtful = False

    def draw_all(self, generations: list[Generation]) -> None:
        """Body of its thread: nothing is raised, all is written down."""
        try:
            for generation in generations:
                if self.doubtful:
                    self.connect()
                if self.draw(generation)["what"] == "lost":
                    return  # this control node follows one at a time
        except Exception as error:
            why = f"client {self.number}: {type(error).__name__}: {error}"
            self.history.append("broken", why=why, traceback=traceback.format_exc())

    def draw(self, generation: Generation) -> Entry:
        """Ask, follow to the end, perhaps take back; the entry of its end."""
        self._strays()
        name, request = generation.name, generation.request
        told = {"client": self.number, "node": self.node, "request": request}
        self.history.append("invoke", generation=name, **told)
        self.control.ask("generate", request=request, watch=True)
        accepted = False
        taken_back = generation.cancel_at is None
        until = time.monotonic() + LOST_SECONDS
        identity = ""
        while True:
            event = self._next(until)
            if event is None:
                return self.history.append("lost", generation=name)
            kind = event["event"]
            if kind == "accepted":
                accepted, identity = True, event["id"]
                self.history.append("accepted", generation=name, id=identity)
            elif kind in ENDS:
                return self._ended(name, event, accepted)
            else:
                self.history.append("event", generation=name, **kept(event))
            if not taken_back and event.get("step", 0) >= (generation.cancel_at or 0):
                taken_back = True
                self.history.append("cancel", generation=name)
                self.control.ask("cancel", id=identity)

    def _ended(self, name: str, event: Event, accepted: bool) -> Entry:
        if event["event"] == "done":
            result = event["result"]
            images = [
                {k: image[k] for k in ("seed", "pixels_sha256", "latent_sha256", "png")}
                for image in result["images"]
            ]
            return self.history.append(
                "end", generation=name, state="done", images=images, **provenance(result)
            )
        why = {"name": event["name"], "sentence": event["sentence"]}
        self.doubtful = event["name"] != "cancelled"
        if not accepted:
            return self.history.append("refused", generation=name, **why)
        state = "cancelled" if event["name"] == "cancelled" else "failed"
        return self.history.append("end", generation=name, state=state, **why)

    def _next(self, until: float) -> Event | None:
        """The next event; None when there is none before `until`."""
        try:
            event = self.control.events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None
        assert event is not None, f"the control node of client {self.number} ended"
        return event

    def _strays(self) -> None:
        """What came although no generation was open."""
        while True:
            try:
                event = self.control.events.get_nowait()
            except queue.Empty:
                return
            if event is not None:
                self.history.append("stray", client=self.number, **kept(event))

    def close(self) -> None:
        """Look once more for what should not come, and end."""
        self._strays()
        self.control.__exit__()


def kept(event: Event) -> dict[str, Any]:
    """An event as the history has it."""
    kind = event["event"]
    facts = {name: event[name] for name in KEPT.get(kind, ()) if name in event}
    if kind == "step":
        facts["asked"] = [index_of(node) for _, node in sorted(event["asked"].items())]
    return {"event": kind, **facts}


def provenance(result: dict[str, Any]) -> dict[str, Any]:
    """What of a result goes with its pictures into the history."""
    names = ("routing", "threads", "deterministic", "failovers", "hedges", "degraded", "seconds")
    return {name: result[name] for name in names if name in result} | {
        "calls": len(result["calls"])
    }
