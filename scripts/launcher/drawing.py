"""A generation that is watched: asked for through a control node, its events read one by one.

Used by the trials (launcher/trials.py) and the tests. It dies with its control node, and the
generation is cancelled then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from launcher.control import Control, Event
from launcher.processes import Refused

PATIENCE = 120.0  # a loaded machine is slow, not wrong: what is waited for is an event
Request = dict[str, Any]
Result = dict[str, Any]


class Drawing:
    """A generation in flight and its events so far; each says under `heard` when it came here."""

    def __init__(self, control: Control, request: Request) -> None:
        """Ask for it; returns when the engine has taken it, Refused when it has not."""
        self.control = control
        self.seen: list[Event] = []
        control.ask("generate", request=request, watch=True)
        self.id: str = control.answer("accepted")["id"]

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted; Refused with what came instead."""
        deadline = time.monotonic() + PATIENCE
        for event in self.control.answers("done"):
            self.seen.append(event)
            if wanted(event):
                return event
            if time.monotonic() > deadline:
                break
        kinds = [event["event"] for event in self.seen if event["event"] != "quiet"]
        raise Refused(f"the awaited event of {self.id} did not come; there were {kinds}")

    def step(self, number: int) -> Event:
        """The event of step `number`, from 0: its experts have just been asked."""
        return self.until(lambda e: e["event"] == "step" and e["step"] == number + 1)

    def asked(self, expert: int, node: str) -> Event:
        """The step at which this expert is asked of this node."""
        return self.until(lambda e: e["event"] == "step" and e["asked"].get(str(expert)) == node)

    def result(self) -> Result:
        """Wait for the end."""
        result: Result = self.until(lambda e: e["event"] == "done")["result"]
        return result


def pixels(result: Result) -> list[str]:
    """What a result's pictures are known by."""
    return [image["pixels_sha256"] for image in result["images"]]
