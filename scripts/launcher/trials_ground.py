"""What trials are made on: a running cluster, a request, and its pictures when nothing is wrong.

A trial (launcher/trials.py) does harm at one step of a generation; here is how it waits for the
cluster to be whole, whom it may harm, and how a record is made of what came of it. Times are from
the harm, by our clock, to what the requesting node wrote down, by the same machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from launcher.control import Event
from launcher.drawing import Drawing, Request, Result, pixels
from launcher.nodes import index_of, node_name
from launcher.processes import Refused
from launcher.simulated import LOOK_SECONDS, REST_SECONDS, Fleet, expert
from launcher.spreads import percentile

WHOLE_SECONDS = 240.0
SERVED_SECONDS = 10.0
# A holder whose worker died three times in a minute loses that expert: then the next is harmed.
STRIKES, STRIKES_SECONDS = 2, 60.0
GAVE_UP = ("reached_max_restart_intensity", "expert_worker_failed", "pipeline_worker_failed")
Holders = dict[int, list[str]]
Record = dict[str, Any]


class Ground:
    """A cluster that is whole, and a request whose undisturbed pictures are known."""

    def __init__(self, fleet: Fleet, request: Request) -> None:
        self.fleet = fleet
        self.request = request
        self.nodes = len(fleet.cluster.nodes)
        undisturbed = self.begin().result()
        self.pixels = pixels(undisturbed)
        self.chosen = [
            {expert for image in undisturbed["routing"] for expert in image[step]["experts"]}
            for step in range(undisturbed["steps"])
        ]
        self._struck: dict[int, list[float]] = {}

    def begin(self, **more: Any) -> Drawing:
        """Ask the first node for the pictures."""
        return Drawing(self.fleet.control, {**self.request, **more})

    def same(self, result: Result) -> bool:
        """Whether these are the undisturbed pictures."""
        return pixels(result) == self.pixels

    def whole(self, enough: Callable[[Holders], bool] = lambda h: all(h.values())) -> Holders:
        """Who may be asked for what, once all living nodes are linked and `enough` hold enough."""
        nodes = len(self.fleet.cluster.alive())
        deadline = time.monotonic() + WHOLE_SECONDS
        while True:
            figures = self.fleet.figures()
            linked = [f for f in figures if f["linked"] == nodes - 1]
            holders = holders_of(figures)
            if len(linked) == nodes and enough(holders):
                return holders
            if time.monotonic() > deadline:
                raise Refused(
                    f"the cluster was not whole again in {WHOLE_SECONDS:.0f} s: {len(linked)} of "
                    f"{nodes} nodes linked, holders {holders} (logs: {self.fleet.cluster.run})"
                )
            time.sleep(LOOK_SECONDS)

    def at_rest(self) -> Holders:
        """The same, once everybody holds its share of one plan and nothing has changed for long."""
        deadline = time.monotonic() + WHOLE_SECONDS
        before, since = None, time.monotonic()
        while True:
            holders, figures = self.whole(), self.fleet.figures()
            now = (holders, {f["plan"] for f in figures})
            if now != before or len(now[1]) > 1 or not all(f["joined"] for f in figures):
                before, since = now, time.monotonic()
            if time.monotonic() - since >= REST_SECONDS:
                return holders
            if time.monotonic() > deadline:
                raise Refused(f"the cluster did not come to rest in {WHOLE_SECONDS:.0f} s: {now}")
            time.sleep(LOOK_SECONDS)

    def replicated(self, step: int, spare_requester: bool = False) -> tuple[int, Holders]:
        """The same, once this step asks for an expert whose holder may be lost; and the step.

        A spared requester may be the holder for ever: then it is the next step that will do.
        """
        steps = [step]
        if spare_requester:
            steps = [*range(step, len(self.chosen)), *range(step)]

        def fit(holders: Holders) -> list[int]:
            return [
                one
                for one in steps
                if any(
                    len(holders[expert]) > 1 and not self._weak(holders[expert], spare_requester)
                    for expert in self.chosen[one]
                )
            ]

        holders = self.whole(lambda holders: bool(fit(holders)))
        return fit(holders)[0], holders

    def victim(
        self, event: Event, holders: Holders, spare_requester: bool = False
    ) -> tuple[int, int] | None:
        """Of those whom this step asks: an expert that others hold too, and the node's number."""
        asked = {int(expert): index_of(name) for expert, name in event["asked"].items()}
        fit = [
            (self._strikes(index), expert, index)
            for expert, index in asked.items()
            if len(holders[expert]) > 1 and not (spare_requester and index == 0)
        ]
        fewest = min(fit, default=None)
        if fewest is None or fewest[0] >= STRIKES:
            return None
        return fewest[1], fewest[2]

    def strike(self, index: int) -> None:
        """Remember that this node's worker was killed."""
        self._struck.setdefault(index, []).append(time.monotonic())

    def _strikes(self, index: int) -> int:
        since = time.monotonic() - STRIKES_SECONDS
        return sum(at > since for at in self._struck.get(index, []))

    def _weak(self, names: list[str], spare_requester: bool) -> bool:
        """Nobody who may be asked can be harmed now: that is the first, or with calls out another.

        A requester that is spared and holds everything is asked first, and then not at once again.
        """
        if not spare_requester:
            return self._strikes(index_of(names[0])) >= STRIKES
        return all(i == 0 or self._strikes(i) >= STRIKES for i in map(index_of, names))

    def check(self, result: Result) -> None:
        """Refused when these are not the undisturbed pictures, whatever they were drawn for."""
        if not self.same(result):
            raise Refused(f"the pictures of {result['id']} are not the undisturbed ones")

    def record(self, fault: str, result: Result, **more: Any) -> Record:
        """What came of a trial whose generation ended as it should."""
        return {
            "fault": fault,
            "lost": False,
            "same_pixels": self.same(result),
            "extra_calls": result["asked"] - len(result["calls"]),
            "failovers": len(result["failovers"]),
            "hedges": len(result["hedges"]),
            **more,
        }

    def mended(self) -> list[str]:
        """Until every node's expert worker is up again and every expert can be lost again."""
        deadline = time.monotonic() + WHOLE_SECONDS
        self.whole(lambda holders: all(len(names) > 1 for names in holders.values()))
        while True:
            states = {f["node"]: expert(f)["state"] for f in self.fleet.figures()}
            if set(states.values()) == {"ready"} and len(states) == self.nodes:
                return list(states)
            if time.monotonic() > deadline:
                raise Refused(f"not every expert worker came back: {states}")
            time.sleep(LOOK_SECONDS)

    def served(self, index: int) -> bool:
        """Whether this node's expert worker comes to an end with all it was asked."""
        deadline = time.monotonic() + SERVED_SECONDS
        while time.monotonic() < deadline:
            figures = {f["node"]: expert(f) for f in self.fleet.figures()}
            worker = figures.get(node_name(index), {})
            idle = worker.get("in_flight") == 0 and worker.get("waiting") == 0
            if idle and worker["state"] == "ready":
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def gave_up(self) -> list[str]:
        """Lines of the nodes' logs in which a supervisor, or an owner of a worker, gave up."""
        logs = [self.fleet.cluster.log(index) for index in range(self.nodes)]
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return [line for line in lines if any(word in line for word in GAVE_UP)]


def lost(fault: str, refusal: Refused, **more: Any) -> Record:
    """What came of a trial whose generation did not end as it should."""
    return {"fault": fault, "lost": True, "why": str(refusal), **more}


def holders_of(figures: list[dict[str, Any]]) -> Holders:
    """Whom the requester would ask for each expert, best first."""
    first = next((f for f in figures if f["node"] == node_name(0)), None)
    if first is None:
        return {}
    return {expert["expert"]: expert["holders"] for expert in first["experts"]}


def asked_instead(at: float, result: Result, name: str) -> Event | None:
    """The first time from then on that somebody was asked in place of this node, or besides it."""
    moved = [e for e in (*result["failovers"], *result["hedges"]) if e["from"] == name]
    later = [entry for entry in moved if since(at, result, entry["at_us"]) >= 0]
    return min(later, key=lambda entry: entry["at_us"], default=None)


def since(at: float, result: Result, at_us: float) -> float:
    """Milliseconds from `at` to a moment of this generation."""
    return round((result["began_us"] + at_us) / 1000 - at * 1000, 2)


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile (the least that 95 in 100 do not exceed) and maximum."""
    return {"p50": median(values), "p95": percentile(values, 95), "max": max(values)}


def step_end_us(result: Result, step: int) -> float:
    """When the last of a step's calls was answered."""
    calls = [call for call in result["calls"] if call["step"] == step]
    end: float = max(call["at_us"] + 1000 * call["ms"] for call in calls)
    return end
