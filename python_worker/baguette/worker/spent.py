"""Where the nanoseconds of this process's last frames went, for `make bench-step`.

The runner begins and ends a frame's account, and whoever works on it in between marks what the time
since the last mark was spent on: a clock reading each. Nothing of it is in an answer; the entry
point `frames` tells it when it is asked. One thread computes, so one account is open at a time.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Literal

from baguette.worker.payload import pack

Part = Literal["decode", "wait", "core", "unpack", "compute", "pack", "encode"]
"""Reading the frame's term; until those before it were done; a core of its own; reading the
payload; computing; packing the answer; until the answer is about to be written."""

KEPT = 512


class Spent:
    """The frame that is worked on, and those before."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, int | str]] = deque(maxlen=KEPT)
        self._parts: dict[str, int] = {}
        self._at = 0

    def begin(self, read_at: int, decoded_at: int) -> None:
        """A frame is taken that was read and decoded then (time.perf_counter_ns())."""
        self._parts = {"decode": decoded_at - read_at}
        self._at = decoded_at
        self.mark("wait")

    def mark(self, part: Part) -> None:
        """The time since the last mark was spent on this."""
        now = time.perf_counter_ns()
        self._parts[part] = self._parts.get(part, 0) + now - self._at
        self._at = now

    def end(self, frame: int, function: str, calls: int) -> None:
        """Its answer is about to be written, with those of its company: so many calls in all."""
        self.mark("encode")
        self._kept.append({"frame": frame, "function": function, "calls": calls, **self._parts})

    def frames(self) -> list[dict[str, int | str]]:
        """The last frames, oldest first."""
        return list(self._kept)


spent = Spent()


def frames(_payload: bytes) -> bytes:
    """{} -> {frames: [{frame, function, calls, and nanoseconds of each part}]}: an entry point."""
    return pack({"frames": spent.frames()})
