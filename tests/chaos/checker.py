"""From a history to what is wrong with it. Pure: nothing here looks at a cluster.

Each rule is a function of a Record; docs/internals/chaos.md has them in words. What was not
recorded does not count as right: a picture without a twin, a fault without its end and a run
without a look at its processes are violations too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chaos.history import Entry
from chaos.plan import POISON

DEADLINE_SECONDS = 120.0  # of a generation, from its being accepted
LATE_SECONDS = 5.0  # an end may be told this much later: the machine is loaded
CANCEL_SECONDS = 2.0  # what had been sent before the cancel came there
# Steps of 8 bit between a picture and its twin with the same routing: a rounding that tipped.
TOLERANCE = 1
KEPT_RESULTS = 64  # a node keeps so many, each a process and its result
# Seen: two processes and 500 KiB more than what the results take, 3 MiB more in a worker.
MORE_PROCESSES = 10
MORE_MEMORY_KIB = 8 * 1024
MEMORY_A_RESULT_KIB = 1024
MORE_RESIDENT_KIB = 32 * 1024
POISONED = "expert_call_died"  # the name with which a poisoned request fails
LOSSES = {"died", "lost", "unreachable", "not_held"}  # why a call has to be made again


@dataclass(frozen=True)
class Violation:
    """One rule that does not hold, and of what."""

    rule: str
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.about} {self.text}"


class Record:
    """A history by what its entries are about."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.plan: dict[str, Any] = next((e for e in entries if e["what"] == "plan"), {})
        self.requests = {e["generation"]: e for e in entries if e["what"] == "invoke"}
        self.faults = [e for e in entries if e["what"] == "fault"]

    def of(self, generation: str, *whats: str) -> list[Entry]:
        """What was written of one generation, in order."""
        return [e for e in self.entries if e.get("generation") == generation and e["what"] in whats]

    def all(self, what: str) -> list[Entry]:
        return [e for e in self.entries if e["what"] == what]

    def ends_at(self, node: int) -> int:
        """How many generations of this node have ended."""
        asked = {name for name, invoke in self.requests.items() if invoke["node"] == node}
        return sum(entry["generation"] in asked for entry in self.all("end"))

    def healed(self, fault: Entry) -> float:
        """When a fault was over; for ever, when nobody said so."""
        ends = [e["at"] for e in self.all("healed") if e["fault"] == fault["fault"]]
        return ends[0] if ends else float("inf")

    def is_poisoned(self, generation: str) -> bool:
        """Whether it kills the workers that compute it."""
        return self.requests[generation]["request"].get("prompt") == POISON

    def requester_died(self, generation: str, until: float) -> bool:
        """Whether its node was killed, or away, between its being asked for and `until`."""
        invoke = self.requests[generation]
        return any(
            invoke["node"] in fault["kills"]
            and fault["at"] <= until
            and invoke["at"] <= self.healed(fault)
            for fault in self.faults
        )

    def struck(self, node: int, since: float, until: float) -> bool:
        """Whether something that is no orderly leaving held that node in this time."""
        return any(
            fault["kind"] != "leave"
            and (fault["node"] == node or fault["node"] is None)
            and fault["at"] <= until
            and since <= self.healed(fault)
            for fault in self.faults
        )


def violations(entries: list[Entry]) -> list[Violation]:
    """Everything that is wrong, rule by rule."""
    record = Record(entries)
    return [violation for rule in RULES for violation in rule(record)]


def asked_for(record: Record) -> Iterator[Violation]:
    """Every generation of the plan was asked for, and the runner did not break."""
    if not record.plan:
        yield Violation("plan", "the history", "has no plan")
    for part in ("generations", "probes"):
        for generation in _planned(record, part):
            if generation["name"] not in record.requests:
                yield Violation("plan", generation["name"], "was never asked for")
    for entry in record.all("broken"):
        yield Violation("plan", "the runner", f"broke: {entry['why']}")


def struck_and_healed(record: Record) -> Iterator[Violation]:
    """Every fault of the plan struck, or found nothing to strike, and was healed."""
    begun = {e["fault"] for e in record.entries if e["what"] in ("fault", "missed")}
    for fault in _planned(record, "faults"):
        if fault["name"] not in begun:
            yield Violation("plan", fault["name"], f"({fault['kind']}) never struck")
    for fault in record.faults:
        if record.healed(fault) == float("inf"):
            yield Violation("plan", fault["fault"], f"({fault['kind']}) was never healed")


def one_end(record: Record) -> Iterator[Violation]:
    """What was accepted ends in exactly one state; what was not accepted, in none."""
    for name in record.requests:
        accepted = len(record.of(name, "accepted"))
        ends = [e["state"] for e in record.of(name, "end")]
        refused = len(record.of(name, "refused"))
        if accepted + refused != 1:
            text = f"was accepted {accepted} times and refused {refused} times"
            yield Violation("one end", name, text)
        if len(ends) != accepted:
            text = f"was accepted {accepted} times and ended {ends}"
            yield Violation("one end", name, text)


def in_time(record: Record) -> Iterator[Violation]:
    """No generation takes longer than its deadline."""
    for name in record.requests:
        times = [e["at"] for e in record.of(name, "accepted", "end")]
        if len(times) > 1 and times[-1] - times[0] > DEADLINE_SECONDS + LATE_SECONDS:
            yield Violation("in time", name, f"took {times[-1] - times[0]:.1f} s")


def allowed_end(record: Record) -> Iterator[Violation]:
    """Failed or refused only where its requester was killed; cancelled only where taken back."""
    for name in record.requests:
        for end in record.of(name, "end", "refused"):
            state = end.get("state", "refused")
            if record.is_poisoned(name):
                continue
            if state in ("failed", "refused") and not record.requester_died(name, end["at"]):
                text = f"{state} although its requester lived: {end['name']}, {end['sentence']}"
                yield Violation("no failure", name, text)
            if state == "cancelled" and not record.of(name, "cancel"):
                yield Violation("no failure", name, "is cancelled although nobody took it back")


def poison_fails(record: Record) -> Iterator[Violation]:
    """A request that kills its workers fails, and by its own name: it is drawn by nobody."""
    for name in filter(record.is_poisoned, record.requests):
        for end in record.of(name, "end"):
            if end["state"] != "failed":
                yield Violation("poison", name, f"is {end['state']}")
            elif end["name"] != POISONED and not record.requester_died(name, end["at"]):
                text = f"failed with {end['name']}, not {POISONED}: {end['sentence']}"
                yield Violation("poison", name, text)


def nothing_after(record: Record) -> Iterator[Violation]:
    """Nothing after the end, and after a cancel nothing but the end."""
    for entry in record.all("stray"):
        yield Violation("after", f"client {entry['client']}", f"got {entry['event']} of nothing")
    for name in record.requests:
        told = record.of(name, "event", "end")
        ends = [i for i, entry in enumerate(told) if entry["what"] == "end"]
        if ends and ends[0] != len(told) - 1:
            yield Violation("after", name, f"got {told[-1].get('event', 'an end')} after its end")
        for cancel in record.of(name, "cancel"):
            yield from _after_cancel(record, name, cancel, told)


def _after_cancel(
    record: Record, name: str, cancel: Entry, told: list[Entry]
) -> Iterator[Violation]:
    frozen = record.struck(record.requests[name]["node"], cancel["at"], told[-1]["at"])
    late = [entry for entry in told if entry["at"] > cancel["at"] + CANCEL_SECONDS]
    for entry in late:
        if not frozen and (entry["what"] == "event" or entry["state"] == "done"):
            what = entry.get("event", "its pictures")
            text = f"got {what} {entry['at'] - cancel['at']:.1f} s after it was taken back"
            yield Violation("after", name, text)
            return


def same_picture(record: Record) -> Iterator[Violation]:
    """Every picture equals its undisturbed twin."""
    twins = {entry["generation"]: entry for entry in record.all("twin")}
    planned = {e["name"] for part in ("generations", "probes") for e in _planned(record, part)}
    planned &= record.requests.keys()
    for end in record.all("end"):
        name = end["generation"]
        if end["state"] == "done" and name in planned:
            if name not in twins:
                yield Violation("same picture", name, "has no undisturbed twin to be held to")
            else:
                yield from _compared(name, record.requests[name]["request"], end, twins[name])


def _planned(record: Record, part: str) -> list[dict[str, Any]]:
    return list(record.plan["plan"][part]) if record.plan else []


def _compared(name: str, request: dict[str, Any], end: Entry, twin: Entry) -> Iterator[Violation]:
    seeds = [image["seed"] for image in end["images"]]
    if seeds != list(range(request["seed"], request["seed"] + request["n"])):
        yield Violation("same picture", name, f"has images of the seeds {seeds}")
        return
    if not request["deterministic"] and "differs_by" in twin:
        far = [by for by in twin["differs_by"] if by > TOLERANCE]
        if far:
            yield Violation("same picture", name, f"differs by {far} of 255, at most {TOLERANCE}")
        return
    for part in ("pixels_sha256", "latent_sha256"):
        got = [image[part] for image in end["images"]]
        if part in twin and got != twin[part]:
            yield Violation("same picture", name, f"has another {part} than its twin")
    if not twin.get("same_routing", True):
        yield Violation("same picture", name, "was routed otherwise than its twin")


def leave_loses_nothing(record: Record) -> Iterator[Violation]:
    """A node that leaves in order loses no call: none is made again because it went."""
    for entry in record.all("gone"):
        fault = next(f for f in record.faults if f["fault"] == entry["fault"])
        if entry["undone"] and not record.struck(fault["node"], fault["at"], entry["at"]):
            yield Violation("leave", entry["fault"], f"left work undone: {entry['undone']}")
    for fault in record.faults:
        if fault["kind"] != "leave":
            continue
        node, until = fault["node"], record.healed(fault)
        for entry in record.all("event"):
            if (
                entry["event"] == "failover"
                and _number(entry["from"]) == node
                and entry["why"] in LOSSES
                and fault["at"] <= entry["at"] <= until
                and not record.struck(node, fault["at"], entry["at"])
            ):
                text = f"made a call again that {fault['fault']} took with it ({entry['why']})"
                yield Violation("leave", entry["generation"], text)


def _number(node: str) -> int:
    return int(node.rpartition(".")[2]) - 2


def whole_again(record: Record) -> Iterator[Violation]:
    """When all is healed every node sees every other, every expert is held, nothing runs on."""
    for entry in record.all("unsettled"):
        yield Violation("whole again", "the cluster", entry["why"])
    last_fault = max([e["at"] for e in record.faults], default=0.0)
    if not any(e["at"] >= last_fault for e in record.all("settled")):
        yield Violation("whole again", "the cluster", "was not seen whole after the last fault")


def no_process_left(record: Record) -> Iterator[Violation]:
    """A node is a beam with one expert worker and at most one pipeline worker, and that is all."""
    looks = record.all("processes")
    if not looks:
        yield Violation("processes", "the machine", "was not looked at")
        return
    real = record.plan.get("plan", {}).get("model") != "simulated"
    for node, workers in enumerate(looks[-1]["workers"]):
        allowed = (["expert"], ["expert", "pipeline"]) if real else ([],)
        if workers not in allowed:
            yield Violation("processes", f"node {node}", f"has the workers {workers}")
    for line in looks[-1]["strangers"]:
        yield Violation("processes", "nobody's", f"is left: {line[:120]}")


def memory_returns(record: Record) -> Iterator[Violation]:
    """What lived through the run is not much larger, for what a node rightly keeps."""
    before, after = record.all("before"), record.all("after")
    if not before or not after:
        yield Violation("memory", "the nodes", "were not looked at before and after")
        return
    for old, new in zip(before[-1]["nodes"], after[-1]["nodes"], strict=True):
        if old["rss"]["beam"]["pid"] == new["rss"]["beam"]["pid"]:
            results = min(record.ends_at(old["node"]), KEPT_RESULTS)
            yield from _grown(old, new, "processes", MORE_PROCESSES + results, "")
            bound = MORE_MEMORY_KIB + MEMORY_A_RESULT_KIB * results
            yield from _grown(old, new, "memory_kib", bound, " KiB")
        for kind in ("expert", "pipeline"):
            yield from _resident(old, new, kind)


def _grown(old: Entry, new: Entry, name: str, bound: int, unit: str) -> Iterator[Violation]:
    more = new[name] - old[name]
    if more > bound:
        text = f"has {more}{unit} more {name} than before, at most {bound}{unit}"
        yield Violation("memory", f"node {old['node']}", text)


def _resident(old: Entry, new: Entry, kind: str) -> Iterator[Violation]:
    one, other = old["rss"].get(kind), new["rss"].get(kind)
    if one and other and one["pid"] == other["pid"]:
        more = other["kib"] - one["kib"]
        if more > MORE_RESIDENT_KIB:
            text = f"{kind} worker has {more} KiB more than before, at most {MORE_RESIDENT_KIB}"
            yield Violation("memory", f"node {old['node']}", text)


RULES: tuple[Callable[[Record], Iterator[Violation]], ...] = (
    asked_for,
    struck_and_healed,
    one_end,
    in_time,
    allowed_end,
    poison_fails,
    nothing_after,
    same_picture,
    leave_loses_nothing,
    whole_again,
    no_process_left,
    memory_returns,
)
