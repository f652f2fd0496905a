"""Where a step's time goes: what is made of the traces of two nodes whose clocks differ."""

from __future__ import annotations

from typing import Any

import pytest

from launcher import breakdown
from launcher.breakdown import (
    ADVANCE,
    BETWEEN,
    CORES,
    DECIDING,
    ERLANG,
    EXPERT,
    FRAMES,
    PORT,
    PYTHON,
    TORCH,
)
from launcher.processes import Refused

Event = dict[str, Any]
FRAME = {"decode": 1, "wait": 2, "core": 3, "unpack": 4, "compute": 100, "pack": 5, "encode": 6}


class Node:
    """What one node saw, on a clock of its own; times here are microseconds."""

    def __init__(self, name: str, zero: int) -> None:
        self.name = name
        self.zero = zero
        self.events: list[Event] = []
        self.frames: list[dict[str, Any]] = []

    def saw(self, at: int, process: str, what: str, **more: Any) -> None:
        event = {"process": process, "what": what, "at_ns": self.zero + 1000 * at, **more}
        self.events.insert(0, event)  # the order they are told in says nothing

    def serve(self, at: int, ref: str, frame: int, function: str) -> None:
        """A call that takes 1 ms here: 10 us to the worker's owner, 20 there, frames of 2 and 3."""
        self.saw(at, "server", "passed", ref=ref)
        self.saw(at + 10, "owner", "taken", ref=ref)
        self.saw(at + 30, "owner", "framing", frame=frame, function=function)
        self.saw(at + 32, "owner", "framed")
        self.saw(at + 980, "owner", "received")
        self.saw(at + 983, "owner", "read", frame=frame)
        self.saw(at + 1000, "owner", "answered", ref=ref)
        parts = {part: 1000 * us for part, us in FRAME.items()}
        self.frames.append({"frame": frame, "function": function, **parts})

    def told(self) -> dict[str, Any]:
        return {"node": self.name, "events": self.events, "frames": self.frames}


def one_step(asker: Node, holder: Node) -> None:
    """The answer of `start` is known at 0; two are asked, the second answers last."""
    asker.saw(-1304, "drawing", "packing")
    asker.saw(-1300, "drawing", "called", ref="start")
    asker.serve(-1200, "start", 1, "start")
    asker.saw(-10, "drawing", "unpacking")
    asker.saw(0, "drawing", "decided")
    for at, ref in ((50, "first"), (60, "last")):
        asker.saw(at, "drawing", "packing")
        asker.saw(at + 4, "drawing", "asked", ref=ref)
    asker.serve(100, "first", 7, "velocity")
    holder.serve(0, "last", 8, "velocity")
    for at, ref in ((1150, "first"), (2064, "last")):
        asker.saw(at, "drawing", "unpacking")
        asker.saw(at + 6, "drawing", "known", ref=ref)
    asker.saw(2100, "drawing", "packing")
    asker.saw(2104, "drawing", "called", ref="advance")
    asker.serve(2120, "advance", 2, "advance")
    asker.saw(3150, "drawing", "unpacking")
    asker.saw(3155, "drawing", "decided")


def test_the_parts_of_a_step_add_up_to_it() -> None:
    asker, holder = Node("a", 5_000_000), Node("b", -7_000)
    one_step(asker, holder)
    (found,) = breakdown.steps([holder.told(), asker.told()])
    step = {place: ns / 1000 for place, ns in found.items()}
    assert sum(step.values()) == 3155
    # Until the call that counts is packed, and from its answer to the advance.
    assert step[DECIDING, ERLANG] == 60 + 30
    assert step[EXPERT, BETWEEN] == 2000 - 1000
    assert step[EXPERT, FRAMES] == step[ADVANCE, FRAMES] + 1 == 4 + 6 + 2 + 3
    assert step[EXPERT, ERLANG] == 30 + 17
    assert step[ADVANCE, ERLANG] == 30 + 17 + (1046 - 1000)
    assert step[ADVANCE, BETWEEN] == 0
    for where in (EXPERT, ADVANCE):
        assert step[where, TORCH] == 100
        assert step[where, PYTHON] == 1 + 4 + 5 + 6
        assert step[where, CORES] == 2 + 3
        assert step[where, PORT] == 980 - 32 - sum(FRAME.values())


def test_a_step_of_which_something_is_missing_is_not_counted() -> None:
    asker, holder = Node("a", 0), Node("b", 0)
    one_step(asker, holder)
    holder.frames.clear()  # of the call answered last: the first is not taken for it
    assert breakdown.steps([asker.told(), holder.told()]) == []
    with pytest.raises(Refused, match="only 0 of 1 steps"):
        breakdown.record([asker.told(), holder.told()], 1)


def test_the_flame_has_a_bar_for_every_part() -> None:
    asker, holder = Node("a", 0), Node("b", 0)
    one_step(asker, holder)
    found = breakdown.record([asker.told(), holder.told()], 1)
    bars = {line[:23].strip(): line.count("#") for line in breakdown.flame(found)}
    assert bars["step"] == breakdown.BAR
    assert bars[EXPERT] > bars[ADVANCE] > bars[DECIDING]
    assert sum(bars[where] for where in breakdown.WHERE) == pytest.approx(breakdown.BAR, abs=2)
