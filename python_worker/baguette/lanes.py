"""Calls that compute beside each other, on the cores of one process.

Small matrices gain little from a second core, two calls gain all of it: so each gets cores of its
own, and more than one only where there are more cores than calls and enough to do for them. Used by
`together.py`. What dies with it: its threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

# What a core should have to do in a call: for less, waking it takes longer than it helps.
WORTH_FLOPS = 2_000_000_000

Result = TypeVar("Result")


class Lanes:
    """`count` cores; one lane is the caller's own thread, with all that torch gives it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def cores(self, calls: int, flops: int) -> int:
        """How many cores each of so many calls gets, of so many FLOPs each."""
        return max(1, min(self.count // calls, flops // WORTH_FLOPS))

    def share(self, rows: int, most: int) -> int:
        """Rows a call, so that every lane has some; `most` at most."""
        return min(most, -(-rows // self.count))

    def start_all(self, calls: Sequence[Callable[[], Result]], flops: int) -> list[Future[Result]]:
        """Begin calls of so many FLOPs each, with nothing beside them."""
        cores = self.cores(len(calls), flops)
        return [self.start(call, cores) for call in calls]

    def start(self, call: Callable[[], Result], cores: int) -> Future[Result]:
        """Begin a call; where there is one lane only, make it."""
        if self.count == 1:
            done: Future[Result] = Future()
            done.set_result(call())
            return done
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "lane")
        return self._pool.submit(_on, cores, call)


def _on(cores: int, call: Callable[[], Result]) -> Result:
    # Each thread's own: what others compute with, and the caller, stays as it is.
    torch.set_num_threads(cores)
    return call()
