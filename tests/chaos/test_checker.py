"""A good history has no violations; each way of spoiling it has its own."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from chaos.checker import DEADLINE_SECONDS, TOLERANCE, violations
from chaos.history import Entry
from chaos.plan import POISON

Spoil = Callable[[list[Entry]], None]
REQUEST = {"n": 2, "seed": 7, "steps": 3, "deterministic": True}
LOOSE = {**REQUEST, "deterministic": False}
POISONED = {**REQUEST, "prompt": POISON}


def image(seed: int) -> dict[str, Any]:
    return {"seed": seed, "pixels_sha256": f"p{seed}", "latent_sha256": f"l{seed}", "png": ""}


def done(name: str, at: float) -> Entry:
    return {
        "at": at, "what": "end", "generation": name, "state": "done",
        "images": [image(7), image(8)], "routing": [],
    }  # fmt: skip


def twin(name: str) -> Entry:
    return {
        "at": 40.0, "what": "twin", "generation": name, "pixels_sha256": ["p7", "p8"],
        "latent_sha256": ["l7", "l8"], "differs_by": [0, 0], "same_routing": True,
    }  # fmt: skip


def invoke(name: str, at: float, node: int, request: dict[str, Any] = REQUEST) -> Entry:
    asked = {"client": node, "node": node, "request": request}
    return {"at": at, "what": "invoke", "generation": name, **asked}


def of(name: str, at: float, what: str, /, **more: Any) -> Entry:
    return {"at": at, "what": what, "generation": name, **more}


def node(index: int) -> dict[str, Any]:
    rss = {kind: {"pid": 10 * index + i, "kib": 9000} for i, kind in enumerate(("beam", "expert"))}
    return {"node": index, "rss": rss, "memory_kib": 50_000, "processes": 200, "running": 0}


def good() -> list[Entry]:
    """g0 done, g1 taken back, g2 failed with its requester, g3 loose, g4 poisoned; all is well."""
    names = ("g0", "g1", "g2", "g3", "g4")
    plan = {
        "model": "tiny",
        "generations": [{"name": name} for name in names],
        "faults": [{"name": "f0", "kind": "leave"}, {"name": "f1", "kind": "kill_node"}],
        "probes": [],
    }
    return [
        {"at": 0.0, "what": "plan", "plan": plan},
        {"at": 0.1, "what": "before", "nodes": [node(0), node(1), node(2)]},
        invoke("g0", 1.0, 0),
        of("g0", 1.1, "accepted", id="a"),
        {"at": 1.5, "what": "fault", "fault": "f0", "kind": "leave", "node": 2, "kills": []},
        of("g0", 2.0, "event", event="step", step=1),
        done("g0", 3.0),
        invoke("g1", 3.1, 0),
        of("g1", 3.2, "accepted", id="b"),
        of("g1", 3.3, "event", event="step", step=1),
        of("g1", 3.4, "cancel"),
        of("g1", 3.5, "event", event="step", step=2),
        of("g1", 3.6, "end", state="cancelled", name="cancelled", sentence=""),
        {"at": 3.7, "what": "healed", "fault": "f0"},
        invoke("g2", 4.0, 1),
        of("g2", 4.1, "accepted", id="c"),
        {"at": 5.0, "what": "fault", "fault": "f1", "kind": "kill_node", "node": 1, "kills": [1]},
        of("g2", 5.5, "end", state="failed", name="requester_died", sentence=""),
        {"at": 6.0, "what": "healed", "fault": "f1"},
        invoke("g3", 20.0, 0, LOOSE),
        of("g3", 20.1, "accepted", id="d"),
        done("g3", 22.0),
        invoke("g4", 23.0, 0, POISONED),
        of("g4", 23.1, "accepted", id="e"),
        of("g4", 25.0, "end", state="failed", name="expert_call_died", sentence=""),
        {"at": 30.0, "what": "settled", "seconds": 8.0},
        {"at": 31.0, "what": "after", "nodes": [node(0), node(1), node(2)]},
        {
            "at": 32.0, "what": "processes", "strangers": [],
            "workers": [["expert", "pipeline"], ["expert"], ["expert"]],
        },
        twin("g0"),
        twin("g3"),
    ]  # fmt: skip


def the(entries: list[Entry], what: str, name: str = "") -> Entry:
    """The entry of this kind, of this generation or fault where named."""
    return next(
        e
        for e in entries
        if e["what"] == what and name in ("", e.get("generation"), e.get("fault"))
    )


def drop(what: str, name: str = "") -> Spoil:
    return lambda entries: entries.remove(the(entries, what, name))


def change(what: str, name: str, /, **more: Any) -> Spoil:
    return lambda entries: the(entries, what, name).update(more)


def add(entry: Entry) -> Spoil:
    def spoil(entries: list[Entry]) -> None:
        entries.append(entry)
        entries.sort(key=lambda e: e["at"])

    return spoil


def in_node(name: str, value: Any) -> Spoil:
    return lambda entries: the(entries, "after")["nodes"][2].update({name: value})


def swollen(entries: list[Entry]) -> None:
    the(entries, "after")["nodes"][0]["rss"]["expert"]["kib"] += 500_000


def in_twin(name: str, /, **more: Any) -> Spoil:
    return change("twin", name, **more)


FAILED = {"state": "failed", "name": "no_holder", "sentence": "No node holds it"}
LOST_CALL = of(
    "g0", 2.5, "event", event="failover", expert=1, why="died", **{"from": "baguette@127.0.0.4"}
)
SPOILT: dict[str, tuple[str, str, Spoil]] = {
    "a generation never asked for": ("plan", "g3 was never", drop("invoke", "g3")),
    "a runner that broke": ("plan", "broke: oh", add({"at": 9.0, "what": "broken", "why": "oh"})),
    "a fault that never struck": ("plan", "f1 .* never struck", drop("fault", "f1")),
    "a fault never healed": ("plan", "f1 .* never healed", drop("healed", "f1")),
    "no end": ("one end", r"g0 was accepted 1 times and ended \[\]", drop("end", "g0")),
    "two ends": (
        "one end", r"g0 .* \['done', 'cancelled'\]",
        add(of("g0", 3.05, "end", state="cancelled", name="", sentence="")),
    ),
    "an end of what was not accepted": ("one end", "g0 was accepted 0", drop("accepted", "g0")),
    "accepted twice": ("one end", "g0 was accepted 2", add(of("g0", 1.2, "accepted", id="x"))),
    "late": ("in time", "g0 took", change("end", "g0", at=DEADLINE_SECONDS + 7.0)),
    "a failure of an ordinary death": ("no failure", "g3 failed", change("end", "g3", **FAILED)),
    "a failure of another node's death": ("no failure", "g2", change("fault", "f1", kills=[2])),
    "a failure long before its requester's death": (
        "no failure", "g2 failed", change("end", "g2", at=4.5),
    ),
    "a refusal": (
        "no failure", "g3 refused",
        add(of("g3", 20.05, "refused", name="overloaded", sentence="")),
    ),
    "cancelled by itself": ("no failure", "g1 is cancelled", drop("cancel", "g1")),
    "a poisoned request drawn": ("poison", "g4 is done", change("end", "g4", state="done")),
    "a poisoned request taken for another failure": (
        "poison", "g4 failed with deadline", change("end", "g4", name="deadline"),
    ),
    "an event after the end": ("after", "g0 got step", add(of("g0", 3.01, "event", event="step"))),
    "an event of no generation": (
        "after", "client 0", add({"at": 3.05, "what": "stray", "client": 0, "event": "state"}),
    ),
    "a step long after a cancel": (
        "after", "g1 got step 2.1 s after", change("event", "g1", at=5.5),
    ),
    "another picture": ("same picture", "g0 .* pixels", in_twin("g0", pixels_sha256=["p7", "x"])),
    "another latent": ("same picture", "g0 .* latent", in_twin("g0", latent_sha256=["x", "l8"])),
    "another routing": ("same picture", "g0 was routed", in_twin("g0", same_routing=False)),
    "a loose picture too far": (
        "same picture", "g3 differs", in_twin("g3", differs_by=[0, TOLERANCE + 1]),
    ),
    "a picture without a twin": ("same picture", "g0 has no", drop("twin", "g0")),
    "a picture missing": ("same picture", "g0 has images", change("end", "g0", images=[image(7)])),
    "a call lost by leaving": ("leave", "g0 made a call again", add(LOST_CALL)),
    "not well again": (
        "whole again", "node 3", add({"at": 29.0, "what": "unsettled", "why": "node 3 is away"}),
    ),
    "never seen well": ("whole again", "not seen whole", drop("settled")),
    "well only before the last fault": ("whole again", "not", change("settled", "", at=4.9)),
    "a process left": ("processes", "is left: p", change("processes", "", strangers=["python x"])),
    "two workers of a kind": (
        "processes", "node 1", change("processes", "", workers=[["expert"], ["expert"] * 2]),
    ),
    "a worker that did not come back": (
        "processes", "node 0", change("processes", "", workers=[["pipeline"]]),
    ),
    "processes not looked at": ("processes", "not looked at", drop("processes")),
    "more Erlang processes": ("memory", "node 2 has .* processes", in_node("processes", 400)),
    "more memory": ("memory", "node 2 has .* memory_kib", in_node("memory_kib", 250_000)),
    "a larger worker": ("memory", "node 0 expert worker", swollen),
    "memory not looked at": ("memory", "not looked at", drop("after")),
}  # fmt: skip


def test_a_good_history_has_no_violation() -> None:
    assert violations(good()) == []


@pytest.mark.parametrize(("rule", "named", "spoil"), SPOILT.values(), ids=SPOILT.keys())
def test_each_violation_is_found(rule: str, named: str, spoil: Spoil) -> None:
    entries = copy.deepcopy(good())
    spoil(entries)
    found = [v for v in violations(entries) if v.rule == rule]
    assert found, violations(entries)
    assert any(_matches(named, str(v)) for v in found), found


def test_an_empty_history_is_not_a_good_one() -> None:
    rules = {violation.rule for violation in violations([])}
    assert {"plan", "whole again", "processes", "memory"} <= rules


def test_a_node_that_was_started_again_may_be_of_any_size() -> None:
    entries = good()
    grown = the(entries, "after")["nodes"][1]
    grown["memory_kib"] += 250_000
    grown["rss"]["beam"]["pid"] += 1000
    assert violations(entries) == []


def test_a_call_lost_to_another_fault_is_not_the_leaving_nodes() -> None:
    entries = good()
    struck = {"kind": "kill_expert", "node": 2, "kills": []}
    entries += [
        LOST_CALL,
        {"at": 2.4, "what": "fault", "fault": "f1", **struck},
        {"at": 2.8, "what": "healed", "fault": "f1"},
    ]
    assert [v for v in violations(entries) if v.rule == "leave"] == []


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None
