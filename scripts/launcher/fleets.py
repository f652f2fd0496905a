"""Expected against measured: how long a step takes on fleets of unequal machines.

Simulated nodes are given other speeds, one fleet after the other; what placement expects of a step
once the cluster is at rest is held against what a generation then takes. Called by
scripts/bench_cluster.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median
from typing import Any

from launcher.simulated import Fleet

STEPS = 40
# So many generations before the measured one: speeds are learnt from real calls.
WARM = 2


def random_fleets(
    fleet: Fleet, nodes: int, count: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """`count` fleets, seeds 1, 2, ...; a node's speed is between 1/8 and 2 times the device's."""
    rows = []
    for seed in range(1, count + 1):
        tell(f"fleet {seed} of {count}")
        dice = random.Random(seed)
        speeds = [round(2 ** dice.uniform(-3, 1), 3) for _ in range(nodes)]
        for index, speed in enumerate(speeds):
            fleet.simulate(index, speed=speed)
        for _ in range(WARM):
            _draw(fleet, seed)
            fleet.at_rest(nodes)
        # Every node has the same reports at rest, and so expects the same.
        expected = fleet.figures()[0]["expected_step_us"] / 1000
        measured = _draw(fleet, seed + count)
        rows.append({"speeds": speeds, "expected_ms": expected, "measured_ms": round(measured, 2)})
    ratios = sorted(row["measured_ms"] / row["expected_ms"] for row in rows)
    return {
        "fleets": rows,
        "measured_to_expected": {
            "least": round(ratios[0], 3),
            "median": round(median(ratios), 3),
            "most": round(ratios[-1], 3),
        },
    }


def _draw(fleet: Fleet, seed: int) -> float:
    """Milliseconds a step spent with the experts, in one generation."""
    request = {"prompt": "a simulated picture", "seed": seed, "steps": STEPS}
    fleet.control.ask("generate", request=request, watch=False)
    result = fleet.control.answer("done")["result"]
    seconds: float = result["seconds"]["experts"]
    return 1000 * seconds / STEPS
