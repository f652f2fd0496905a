"""What the entry points share: this process's figures."""

from __future__ import annotations

import os
import time

import psutil

STARTED = time.monotonic()


def process_figures() -> dict[str, int]:
    """Resident memory (MiB), uptime (s) and pid of this process, for `stats`."""
    memory = psutil.Process().memory_info().rss
    return {
        "rss_mib": memory >> 20,
        "uptime_s": int(time.monotonic() - STARTED),
        "os_pid": os.getpid(),
    }


def micros_since(start: float) -> int:
    """Whole microseconds since `start`, a time.perf_counter() reading."""
    return int((time.perf_counter() - start) * 1e6)
