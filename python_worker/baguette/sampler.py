"""Euler's method for rectified flow. Pure; called by the families' requesting half."""

from __future__ import annotations

from torch import Tensor


def euler_step(latent: Tensor, velocity: Tensor, t: float, t_next: float) -> Tensor:
    """x + (t_next - t) v, all (C, S, S) fp32: Euler's step for dx/dt = v (Liu et al. 2022)."""
    return latent + (t_next - t) * velocity
