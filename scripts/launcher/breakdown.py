"""Where a step's time goes in a cluster: torch, codecs, ports, threads, Erlang, between nodes.

Called by scripts/bench.py. Every node traces the functions that a call passes through and its
workers tell where the time of their frames went (apps/baguette_engine/src/baguette_engine_trace.erl
and worker/spent.py). Here both are put together, for the calls that a step waited for: of its
expert calls the one answered last, and the pipeline worker's advance. Only durations are compared,
each taken on one clock: what lies between two nodes is what the asker waited less what the other
node took, and a port is what its owner waited less what the process took. So the parts of a step
add up to it, to the nanosecond.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from launcher.control import Control
from launcher.processes import Refused

DECIDING, EXPERT, ADVANCE = "deciding", "expert call", "advance"
TORCH, PYTHON, FRAMES, PORT = "torch", "codec in Python", "codec in Erlang", "port"
CORES, ERLANG, BETWEEN = "waiting for a core", "Erlang", "between nodes"
WHERE = (EXPERT, ADVANCE, DECIDING)
KINDS = (TORCH, PYTHON, FRAMES, PORT, CORES, ERLANG, BETWEEN)
# A frame's parts as its worker tells them.
IN_WORKER = {
    "decode": PYTHON, "unpack": PYTHON, "pack": PYTHON, "encode": PYTHON,
    "wait": CORES, "core": CORES, "compute": TORCH,
}  # fmt: skip
PICTURES = 5
BAR = 44
Record = dict[str, Any]
Event = dict[str, Any]
Step = dict[tuple[str, str], float]
"""Nanoseconds of each kind in each place."""


@dataclass(frozen=True)
class Served:
    """A call on the node that answered it: what it took there, and of what kind."""

    node: str
    function: str
    whole: float
    kinds: dict[str, float]


def measure(control: Control, draw: Callable[[], Record]) -> Record:
    """Draw some pictures while every node traces."""
    control.ask("trace", on=True)
    control.answer("traced")
    results = [draw() for _ in range(PICTURES)]
    control.ask("trace", on=False)
    traces = control.answer("traced")["nodes"]
    return record(traces, sum(result["steps"] for result in results))


def record(traces: Sequence[Record], drawn: int) -> Record:
    """The mean of the middle half of all steps, in microseconds, and each part of it."""
    found = steps(traces)
    if 2 * len(found) < drawn:
        raise Refused(f"only {len(found)} of {drawn} steps were seen whole; run it again")
    middle = _middle_half(found)
    parts = {
        where: {kind: round(fmean(step.get((where, kind), 0.0) for step in middle) / 1000, 1)
                for kind in KINDS}
        for where in WHERE
    }  # fmt: skip
    whole = round(fmean(sum(step.values()) for step in middle) / 1000, 1)
    return {"us_per_step": whole, "parts_us": parts, "steps": len(middle), "steps_drawn": drawn}


def _middle_half(found: list[Step]) -> list[Step]:
    quarter = len(found) // 4
    ordered = sorted(found, key=lambda step: sum(step.values()))
    return ordered[quarter : len(ordered) - quarter]


def steps(traces: Sequence[Record]) -> list[Step]:
    """Every step that was seen from its begin to its end."""
    served: dict[str, Served] = {}
    for trace in traces:
        served |= _served(trace)
    return [
        step
        for trace in traces
        for events in _by_process(trace)
        if any(event["what"] == "asked" for event in events)
        for step in _steps(events, trace["node"], served)
    ]


def _by_process(trace: Record) -> list[list[Event]]:
    ordered = sorted(trace["events"], key=lambda event: event["at_ns"])
    processes: dict[str, list[Event]] = {}
    for event in ordered:
        processes.setdefault(event["process"], []).append(event)
    return list(processes.values())


# --- the node that answers


def _served(trace: Record) -> dict[str, Served]:
    """Calls by reference."""
    frames = {(frame["function"], frame["frame"]): frame for frame in trace["frames"]}
    passed = {e["ref"]: e["at_ns"] for e in trace["events"] if e["what"] == "passed"}
    found = {}
    for events in _by_process(trace):
        for call in _calls(events):
            frame = frames.get((call["framing"]["function"], call["framing"]["frame"]))
            ref = call["taken"]["ref"]
            if frame is not None and ref in passed:
                found[ref] = _one(trace["node"], passed[ref], call, frame)
    return found


def _calls(events: Sequence[Event]) -> Iterator[dict[str, Event]]:
    """What the owner of a worker did for each call, by name; whole ones only."""
    seen: dict[str, Event] = {}
    for event in events:
        if event["what"] == "taken":
            seen = {}
        seen[event["what"]] = event
        if event["what"] == "answered":
            wanted = {"taken", "framing", "framed", "received", "read", "answered"}
            if wanted <= seen.keys() and seen["taken"]["ref"] == event["ref"]:
                yield seen
            seen = {}


def _one(node: str, passed: int, call: dict[str, Event], frame: Record) -> Served:
    at = {what: event["at_ns"] for what, event in call.items()}
    kinds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for part, kind in IN_WORKER.items():
        kinds[kind] += frame.get(part, 0)
    kinds[PORT] = at["received"] - at["framed"] - sum(kinds.values())
    kinds[FRAMES] = at["framed"] - at["framing"] + at["read"] - at["received"]
    kinds[ERLANG] = at["framing"] - passed + at["answered"] - at["read"]
    return Served(node, frame["function"], at["answered"] - passed, kinds)


# --- the generation that asks


@dataclass(frozen=True)
class Asked:
    """A call as its asker saw it, in its nanoseconds: packed and sent, unpacked and known."""

    packing: int
    sent: int
    unpacking: int
    known: int
    served: Served

    def kinds(self, node: str) -> dict[str, float]:
        """All of it by kind; within one node a message is Erlang's."""
        kinds = dict(self.served.kinds)
        kinds[FRAMES] += self.sent - self.packing + self.known - self.unpacking
        outside = self.unpacking - self.sent - self.served.whole
        kinds[ERLANG if self.served.node == node else BETWEEN] += outside
        return kinds


def _asked(events: Sequence[Event], served: dict[str, Served]) -> Iterator[Asked | None]:
    """A generation's calls in the order of their answers; None for one not seen whole."""
    sent: dict[str, tuple[int, int]] = {}
    local = ""
    for before, event in itertools.pairwise(events):
        at = (before["at_ns"], event["at_ns"])
        match before["what"], event["what"]:
            case "packing", ("asked" | "called") as what:
                sent[event["ref"]] = at
                local = event["ref"] if what == "called" else local
            case "unpacking", ("known" | "decided") as what:
                ref = event["ref"] if what == "known" else local
                whole = ref in sent and ref in served
                yield Asked(*sent[ref], *at, served[ref]) if whole else None


def _steps(events: Sequence[Event], node: str, served: dict[str, Served]) -> Iterator[Step]:
    """From the answer that chose a step's experts to the next such answer."""
    begun, last = None, None
    for call in _asked(events, served):
        if call is None:
            begun, last = None, None
        elif call.served.function == "velocity":
            last = call
        else:
            if begun is not None and last is not None:
                yield _step(begun, last, call, node)
            begun, last = call.known, None


def _step(begun: int, expert: Asked, advance: Asked, node: str) -> Step:
    deciding = expert.packing - begun + advance.packing - expert.known
    return {
        (DECIDING, ERLANG): deciding,
        **{(EXPERT, kind): ns for kind, ns in expert.kinds(node).items()},
        **{(ADVANCE, kind): ns for kind, ns in advance.kinds(node).items()},
    }


# --- what is printed


def told(found: Record, untraced_ms: float) -> list[str]:
    """The table, and the same as a flame: every bar as long as its time."""
    parts, whole = found["parts_us"], found["us_per_step"]
    lines = [f"{'us of a step':<20}" + "".join(f"{w:>13}" for w in (*WHERE, "in all", "%"))]
    for kind in KINDS:
        row = [parts[where][kind] for where in WHERE]
        cells = "".join(f"{value:>13.0f}" for value in (*row, sum(row)))
        lines.append(f"{kind:<20}{cells}{100 * sum(row) / whole:>13.1f}")
    lines += ["", *flame(found)]
    lines.append(
        f"mean of the middle {found['steps']} of {found['steps_drawn']} traced steps; "
        f"of the expert calls the one answered last; without tracing {1000 * untraced_ms:.0f} us"
    )
    return lines


def flame(found: Record) -> list[str]:
    """Indented bars, one under what it is a part of."""
    parts, whole = found["parts_us"], found["us_per_step"]
    lines = [_bar("step", whole, whole)]
    for where in WHERE:
        lines.append(_bar(f"  {where}", sum(parts[where].values()), whole))
        within = [(kind, us) for kind, us in parts[where].items() if us]
        if len(within) > 1:
            lines += [_bar(f"    {kind}", us, whole) for kind, us in within]
    return lines


def _bar(name: str, us: float, whole: float) -> str:
    return f"{name:<24}{us:>7.0f} us  {'#' * round(BAR * us / whole)}"
