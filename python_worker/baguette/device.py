"""Device, threads and memory of this process. Called once by every process that computes."""

from __future__ import annotations

import torch


def compute_device() -> torch.device:
    """Where experts compute: the first GPU if torch can use one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pin_threads(threads: int) -> None:
    """Compute with exactly `threads` threads: bytes are promised for one thread count only."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
