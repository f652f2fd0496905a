"""One function a fault: harm a running cluster in the middle of a generation, and say what came.

Each makes one trial on a Ground and leaves the cluster as it was, or about to be. The record says
under `detected_ms` how long after the harm somebody else was asked (or, where there is nobody, when
it was noticed), under `recovered_ms` how long until the step that was hit had its answers, whether
the pictures are those of an undisturbed run, and how many calls were made beyond those that
answered. Used by tests/test_surviving.py (few trials) and scripts/bench_reliability.py (figures).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from launcher.control import Control, Event
from launcher.drawing import Drawing, Result
from launcher.nodes import index_of, node_name
from launcher.processes import Process, Refused, wait_gone
from launcher.trials_ground import (
    Ground,
    Record,
    asked_instead,
    lost,
    since,
    step_end_us,
)
from launcher.waiting import CONNECT_SECONDS

# A call can be over before the harm is done, or nobody may be harmed just now (STRIKES): then the
# trial is made again, for as long as it takes whoever was harmed often to be let go.
TRIES_SECONDS = 240.0
TRIES = 12  # of trials that harm nobody
GONE_SECONDS = 10.0
LEAVE_MS = 60_000
# Longer than a late heartbeat takes to be one (suspect_ms), shorter than a worker may hang.
STOPPED_SECONDS = 4.0
# Room for one expert of the tiny model a node; and a node more than experts, so that a lost one
# finds a place where a replica gives way.
SOLE_EXPERTS, SOLE_MIB = 6, 1
Harm = Callable[[Ground, int], list[Process]]
Mend = Callable[[Ground, int, int, list[Process]], Record]


# --- of those who are asked --------------------------------------------------------------------


def expert_worker_killed(ground: Ground, step: int) -> Record:
    """kill -9 of an expert worker during its call; a replica lives."""

    def mend(ground: Ground, index: int, expert: int, harmed: list[Process]) -> Record:
        ground.strike(index)
        return {}

    return _asked_harmed("expert_worker_killed", ground, step, _expert_worker, _kill, mend)


def expert_worker_stopped(ground: Ground, step: int) -> Record:
    """SIGSTOP of an expert worker during its call, until somebody else has answered.

    It is asked again, like every straggler, once what was learnt of it has faded.
    """

    def mend(ground: Ground, index: int, expert: int, harmed: list[Process]) -> Record:
        _continue(harmed)
        return {"serves_again": ground.served(index), "same_process": harmed[0].alive()}

    return _asked_harmed(
        "expert_worker_stopped", ground, step, _expert_worker, _stop, mend, silent=True
    )


def node_killed(ground: Ground, step: int) -> Record:
    """kill -9 of a whole node that is asked and is not the requester; it is started again."""

    def mend(ground: Ground, index: int, expert: int, harmed: list[Process]) -> Record:
        left = wait_gone(harmed, GONE_SECONDS)
        ground.fleet.start_node(index)
        return {"left_behind": len(left)}

    return _asked_harmed("node_killed", ground, step, _whole_node, _kill_first, mend, spare=True)


def node_stopped(ground: Ground, step: int) -> Record:
    """SIGSTOP of a whole node, longer than a late heartbeat; then it is a member again."""

    def mend(ground: Ground, index: int, expert: int, harmed: list[Process]) -> Record:
        time.sleep(STOPPED_SECONDS)  # the silence is the fault
        at = time.time()
        _continue(harmed)
        ground.whole(lambda holders: node_name(index) in holders[expert])
        again = round((time.time() - at) * 1000)
        return {"member_again_ms": again, "same_process": all(p.alive() for p in harmed)}

    return _asked_harmed(
        "node_stopped", ground, step, _whole_node, _stop, mend, spare=True, silent=True
    )


def _asked_harmed(
    fault: str,
    ground: Ground,
    step: int,
    whom: Harm,
    how: Callable[[list[Process]], None],
    mend: Mend,
    spare: bool = False,
    silent: bool = False,
) -> Record:
    """Harm somebody whom this step asks; again where its call was answered before that.

    Who falls `silent` after its answer is noticed all the same, by the next call it is asked.
    """
    missed = spared = 0
    deadline = time.monotonic() + TRIES_SECONDS
    while time.monotonic() < deadline:
        step, holders = ground.replicated(step, spare)
        known = {index: whom(ground, index) for index in range(ground.nodes)}
        drawing = ground.begin()
        victim = ground.victim(drawing.step(step), holders, spare)
        if victim is None:
            ground.check(drawing.result())
            spared += 1
            continue
        expert, index = victim
        at = time.time()
        how(known[index])
        came = _came(drawing)
        more = {"step": step, "missed": missed, **mend(ground, index, expert, known[index])}
        if isinstance(came, Refused):
            return lost(fault, came, **more)
        ground.check(came)
        hit = asked_instead(at, came, node_name(index))
        if hit is not None and (silent or hit["step"] == step):
            return ground.record(fault, came, **_times(at, came, hit), **more)
        missed += 1
    raise Refused(
        f"{fault}: no call of step {step} was hit in {TRIES_SECONDS:.0f} s: {missed} were answered "
        f"before the harm, {spared} were of nobody who may be harmed"
    )


def _came(drawing: Drawing) -> Result | Refused:
    try:
        return drawing.result()
    except Refused as refusal:
        return refusal


def _times(at: float, result: Result, hit: dict[str, Any]) -> Record:
    return {
        "detected_ms": since(at, result, hit["at_us"]),
        "recovered_ms": since(at, result, step_end_us(result, hit["step"])),
        "hit_step": hit["step"],
        "why": hit.get("why", "slow"),
    }


def _expert_worker(ground: Ground, index: int) -> list[Process]:
    return [p for p in [ground.fleet.cluster.worker(index, "expert")] if p is not None]


def _whole_node(ground: Ground, index: int) -> list[Process]:
    node = ground.fleet.cluster.nodes[index]
    return [node, *node.descendants()]


def _kill(processes: list[Process]) -> None:
    for process in processes:
        process.signal(signal.SIGKILL)


def _kill_first(processes: list[Process]) -> None:
    """The Erlang node: what it started must end by itself."""
    processes[0].signal(signal.SIGKILL)


def _stop(processes: list[Process]) -> None:
    for process in processes:
        process.signal(signal.SIGSTOP)


def _continue(processes: list[Process]) -> None:
    for process in reversed(processes):
        process.signal(signal.SIGCONT)


# --- the requester -----------------------------------------------------------------------------


def requester_killed(ground: Ground, step: int) -> Record:
    """kill -9 of a node that draws; another node's generation goes on beside it.

    `detected_ms`: until whoever waited for the lost one was told. The record is of the other one.
    """
    ground.whole()
    index = ground.nodes - 1
    with Control(ground.fleet.target(index), f"control-{index}") as control:
        control.connect(CONNECT_SECONDS)
        dying = Drawing(control, ground.request)
        dying.step(0)  # its pipeline worker is up
        living = ground.begin()
        dying.step(max(1, step))
        at = time.time()
        ground.fleet.cluster.nodes[index].signal(signal.SIGKILL)
        told = _came(dying)
        detected = round((time.time() - at) * 1000, 2)
    came = _came(living)
    ground.fleet.start_node(index)
    if isinstance(came, Refused):
        return lost("requester_killed", came, step=step)
    return ground.record(
        "requester_killed", came, step=step, detected_ms=detected, told=str(told),
        was_told=isinstance(told, Refused) and "has died" in str(told),
    )  # fmt: skip


def pipeline_worker_killed(ground: Ground, step: int) -> Record:
    """kill -9 of the requester's own pipeline worker while it advances the latents."""
    ground.whole()
    worker = ground.fleet.cluster.worker(0, "pipeline")
    if worker is None:
        raise Refused(f"{node_name(0)} has no pipeline worker")
    drawing = ground.begin()
    drawing.step(step)
    drawing.until(lambda e: e["event"] == "state" and e["state"] == "advancing")
    at = time.time()
    worker.signal(signal.SIGKILL)
    came = _came(drawing)
    if isinstance(came, Refused):
        return lost("pipeline_worker_killed", came, step=step)
    told = [e for e in drawing.seen if e["event"] == "waiting" and e["heard"] > at]
    after = [call["at_us"] for call in came["calls"] if call["step"] == step + 1]
    return ground.record(
        "pipeline_worker_killed", came, step=step,
        detected_ms=round((told[0]["heard"] - at) * 1000, 2) if told else None,
        recovered_ms=since(at, came, min(after)),
        told=[e.get("text") for e in told],
        new_worker=ground.fleet.cluster.worker(0, "pipeline") not in (None, worker),
    )  # fmt: skip


# --- nobody else holds it ------------------------------------------------------------------------


def sole_holder_killed(ground: Ground, step: int, on_missing: str = "wait") -> Record:
    """kill -9 of the only node that holds an expert which is asked, at `step` or later.

    It is on the others' disks: with `wait` one of them loads it. The node is started again. Nodes
    have room for so little (SOLE_MIB) that nobody takes a second expert meanwhile.
    """
    fault = "sole_holder_killed" if on_missing == "wait" else f"sole_holder_killed_{on_missing}"
    holders = ground.at_rest()
    drawing = ground.begin(on_missing=on_missing)
    asking = drawing.until(
        lambda e: e["event"] == "step" and e["step"] > step and bool(_sole(e, holders, ground))
    )
    expert, index = _sole(asking, holders, ground)[0]
    step = asking["step"] - 1
    family = _whole_node(ground, index)
    at = time.time()
    _kill_first(family)
    came = _came(drawing)
    told = [e for e in drawing.seen if e["event"] == "waiting" and e["heard"] > at]
    more = {
        "step": step,
        "ended_ms": round((time.time() - at) * 1000, 2),
        "noticed_ms": round((told[0]["heard"] - at) * 1000, 2) if told else None,
        "told": [e.get("text") for e in told],
        "left_behind": len(wait_gone(family, GONE_SECONDS)),
    }
    ground.fleet.start_node(index)
    if isinstance(came, Refused):
        return lost(fault, came, **more)
    return ground.record(
        fault, came, detected_ms=more["noticed_ms"], recovered_ms=_answered(at, came, expert),
        degraded=came["degraded"], **more,
    )  # fmt: skip


def _sole(asking: Event, holders: dict[int, list[str]], ground: Ground) -> list[tuple[int, int]]:
    """Experts of a step and the nodes that alone hold them, where the node can be harmed.

    Only one expert of the step is to be missing: the last of an image's is always waited for. Its
    call may be over before the harm is done: a later step asks for it too.
    """
    later = set().union(*ground.chosen[asking["step"] :])
    asked = {int(e): index_of(name) for e, name in asking["asked"].items()}
    return [
        (e, index)
        for e, index in asked.items()
        if index != 0
        and len(holders[e]) == 1
        and list(asked.values()).count(index) == 1
        and e in later
    ]


def _answered(at: float, result: Result, expert: int) -> float | None:
    """Until the first step after this moment in which this expert answered had all its answers."""
    later = [
        call["step"]
        for call in result["calls"]
        if call["expert"] == expert and since(at, result, call["at_us"] + 1000 * call["ms"]) > 0
    ]
    return since(at, result, step_end_us(result, min(later))) if later else None


# --- who comes and who goes ----------------------------------------------------------------------


def node_joins(ground: Ground, step: int) -> Record:
    """A node comes in the middle of a generation. Needs simulated devices: they say when loaded.

    `detected_ms`: from the end of its load to the first call that it is asked; `steps_between`: how
    many steps began in that time.
    """
    index = ground.nodes - 1
    ground.fleet.stop_node(index)
    ground.whole()
    drawing = ground.begin()
    drawing.step(step)
    at = time.time()
    ground.fleet.start_node(index)
    came = _came(drawing)
    figures = {f["node"]: f for f in ground.fleet.figures()}
    ground.whole()
    if isinstance(came, Refused):
        return lost("node_joins", came, step=step)
    worker = next(w for w in figures[node_name(index)]["workers"] if w["kind"] == "expert")
    loaded = worker["loaded_at_ms"] / 1000
    asked = [call["at_us"] for call in came["calls"] if call["node"] == node_name(index)]
    if not asked:
        return ground.record("node_joins", came, step=step, loaded=loaded > at, steps_between=None)
    first = min(asked)
    ready_us = loaded * 1e6 - came["began_us"]
    between = {c["step"] for c in came["calls"] if ready_us < c["at_us"] < first}
    return ground.record(
        "node_joins", came, step=step, loaded=loaded > at, steps_between=len(between),
        detected_ms=since(loaded, came, first), recovered_ms=since(at, came, first),
    )  # fmt: skip


def node_leaves(ground: Ground, step: int) -> Record:
    """A node that is asked leaves in order, as by `make leave`; it is started again."""
    for _ in range(TRIES):
        step, holders = ground.replicated(step, spare_requester=True)
        drawing = ground.begin()
        victim = ground.victim(drawing.step(step), holders, spare_requester=True)
        if victim is not None:
            break
        ground.check(drawing.result())
    else:
        raise Refused(f"node_leaves: in {TRIES} tries no step asked anybody who can leave")
    _, index = victim
    at = time.time()
    with Control(ground.fleet.target(index), f"control-{index}") as control:
        control.connect(CONNECT_SECONDS)
        control.ask("leave", deadline_ms=LEAVE_MS)
        left = control.answer("left")
    took = round((time.time() - at) * 1000, 2)
    came = _came(drawing)
    wait_gone([ground.fleet.cluster.nodes[index]], GONE_SECONDS)
    ground.fleet.start_node(index)
    if isinstance(came, Refused):
        return lost("node_leaves", came, step=step)
    undone = {k: v for k, v in left.items() if k not in ("event", "heard")}
    return ground.record("node_leaves", came, step=step, left_ms=took, undone=undone)
