"""Which times a picture visits, and the time its networks are told. Pure; called by the families.

x_t = (1-t) x0 + t eps: t = 1 is noise, t = 0 the picture (rectified flow, Liu et al. 2022).
"""

from __future__ import annotations

SMALLEST_TIME = 0.001


def time_grid(steps: int, grid: str) -> list[float]:
    """The `steps` + 1 times from 1 to 0 that Euler walks.

    "flow_match" is diffusers' FlowMatchEulerDiscreteScheduler with shift 1: `steps` even points
    from 1.0 to 0.001, then 0. "linspace" is `steps` + 1 even points from 1 to 0.
    """
    if steps < 1:
        raise ValueError(f"got steps={steps} but expected at least 1")
    if grid == "linspace":
        return [1.0 - i / steps for i in range(steps)] + [0.0]
    if grid != "flow_match":
        raise ValueError(f"got grid {grid!r} but expected flow_match or linspace")
    if steps == 1:
        return [1.0, 0.0]
    gap = (SMALLEST_TIME - 1.0) / (steps - 1)
    return [1.0 + i * gap for i in range(steps)] + [0.0]


def network_time(t: float, scale: str) -> float:
    """Time as the networks take it: "1000*sigma" as a float, or "round(999*t)"."""
    return 1000.0 * t if scale == "1000*sigma" else float(round(999 * t))
