"""A straggler among simulated devices: what a node ten times slower than its replica costs a step.

Used by tests/test_straggler.py and scripts/bench_reliability.py. The devices are simulated and
nothing is drawn: the figures are of whom the engine asks, and of whom it asks besides and when,
never of anybody's GPU.
"""

from __future__ import annotations

from collections import Counter
from statistics import median, quantiles
from typing import Any

from launcher.drawing import Result
from launcher.hiccups import Hiccups
from launcher.nodes import index_of
from launcher.processes import Refused
from launcher.simulated import Device, expert
from launcher.trials import TRIES
from launcher.trials_ground import Ground, Record, step_end_us

NODES = 4
# Two experts on four nodes: two holders each, and every step asks for both. Calls are long enough
# for a busy machine not to be the straggler.
DEVICE = Device(batch_us=40_000, row_us=10_000, load_ms=100, experts=2)
REQUEST = {"prompt": "a simulated picture", "seed": 1, "steps": 250}
SLOW = 0.1
# Of a generation just before, in which nothing is wrong.
USUAL_STEPS = 30
# So many of its slow calls may be waited for before it is known.
LEARNING_CALLS = 5
# A machine that stands still for a call's time and more makes everybody a straggler.
STILL_MS = 60.0


def straggler(ground: Ground, generations: int = 1) -> Record:
    """Slow the node down that is asked for expert 0, draw, and make it as fast as it was.

    `detected_ms`: from a slow call to the ask besides it; `recovered_ms`: the longest of the steps
    that were rescued so. Made again where its twin happened to be asked all the time, and where the
    machine stood still meanwhile: nothing is known of the straggler then.
    """
    void = []
    for _ in range(TRIES):
        with Hiccups() as hiccups:
            record = _straggled(ground, generations)
        if record["slow_calls"] > 0 and hiccups.longest_ms < STILL_MS:
            return {**record, "stood_still_ms": hiccups.longest_ms}
        void.append((record["slow_calls"], hiccups.longest_ms))
    raise Refused(
        f"in {TRIES} trials the straggler was never asked on a machine that did not stand still: "
        f"(its calls, the longest standstill in ms) were {void}"
    )


def _straggled(ground: Ground, generations: int) -> Record:
    ground.whole(lambda holders: all(len(names) > 1 for names in holders.values()))
    before = ground.begin(steps=USUAL_STEPS).result()
    name = _asked_most(before, 0)
    ground.fleet.simulate(index_of(name), speed=SLOW)
    try:
        results = [ground.begin().result() for _ in range(generations)]
        left = _unfinished(ground, name)
    finally:
        ground.fleet.simulate(index_of(name), speed=1)
    usual = median(_step_ms(before).values())
    times = [ms for result in results for ms in _known(_step_ms(result), _slow(result, name))]
    rescued = [ms for result in results for ms in _rescued_ms(result)]
    asked = sum(result["asked"] for result in results)
    extra = asked - sum(len(result["calls"]) for result in results)
    p50, p99 = median(times), quantiles(times, n=100)[-1]
    return {
        **ground.record("straggler", results[0]),
        "same_pixels": all(ground.same(result) for result in results),
        "detected_ms": max((ms for r in results for ms in _hedged_after_ms(r)), default=None),
        "recovered_ms": max(rescued, default=None),
        "steps": sum(result["steps"] for result in results),
        "slow_calls": sum(len(_slow(result, name)) for result in results),
        "extra_calls": extra,
        "extra_share": round(extra / asked, 4),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "p99_to_p50": round(p99 / p50, 3),
        "rescued": len(rescued),
        "rescued_to_p50": round(max(rescued) / usual, 3) if rescued else None,
        "unfinished": left,
    }


def _asked_most(result: Result, number: int) -> str:
    asked = Counter(call["node"] for call in result["calls"] if call["expert"] == number)
    return asked.most_common(1)[0][0]


def _step_ms(result: Result) -> dict[int, float]:
    """From a step's first ask to its last answer."""
    began: dict[int, float] = {}
    for call in result["calls"]:
        began[call["step"]] = min(call["at_us"], began.get(call["step"], call["at_us"]))
    return {step: (step_end_us(result, step) - at) / 1000 for step, at in began.items()}


def _slow(result: Result, name: str) -> list[int]:
    """The steps that asked this node, in order: it answered, or somebody else did for it."""
    moved = [*result["failovers"], *result["hedges"]]
    asked = {entry["step"] for entry in moved if entry["from"] == name}
    return sorted(asked | {call["step"] for call in result["calls"] if call["node"] == name})


def _known(times: dict[int, float], slow: list[int]) -> list[float]:
    """All steps but those of the straggler's first five calls."""
    return [ms for step, ms in times.items() if step not in slow[:LEARNING_CALLS]]


def _rescued_ms(result: Result) -> list[float]:
    """The steps in which somebody asked besides has answered."""
    times = _step_ms(result)
    answered = {(call["step"], call["expert"], call["node"]) for call in result["calls"]}
    return [
        round(times[hedge["step"]], 2)
        for hedge in result["hedges"]
        if (hedge["step"], hedge["expert"], hedge["to"]) in answered
    ]


def _hedged_after_ms(result: Result) -> list[float]:
    """From a step's first ask to each ask besides."""
    began = {c["step"]: c["at_us"] for c in sorted(result["calls"], key=lambda c: -c["at_us"])}
    return [round((h["at_us"] - began[h["step"]]) / 1000, 2) for h in result["hedges"]]


def _unfinished(ground: Ground, name: str) -> int:
    """Calls that the straggler still has when nobody waits for one."""
    figures: dict[str, Any] = next(f for f in ground.fleet.figures() if f["node"] == name)
    worker = expert(figures)
    left: int = worker["in_flight"] + worker["waiting"]
    return left
