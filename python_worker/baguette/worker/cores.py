"""One computing worker per core, where many workers share a machine.

Two experts of one step are asked at the same moment. The kernel often wakes both on the core that
their question came from, and for a call of two milliseconds it never moves one of them away: they
run one after the other while another core idles. So a call first takes a core's lock, its own
core's if that is free, and computes there; with every core taken it runs wherever the kernel likes.

The locks are byte ranges of one file (setting BAGUETTE_CORES, given by the launcher of a cluster on
one machine); they go when the process dies. Without the setting nothing is locked or pinned.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

SETTING = "BAGUETTE_CORES"


class Cores:
    """The cores of this machine that this process may use, and who computes on which."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._all = frozenset(os.sched_getaffinity(0))
        self._current = ctypes.CDLL(None).sched_getcpu

    @contextmanager
    def one(self) -> Iterator[None]:
        """Compute on a core that no other worker computes on, if there is one."""
        core = self._take()
        try:
            yield
        finally:
            if core is not None:
                os.sched_setaffinity(0, self._all)
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, core)

    def _take(self) -> int | None:
        here = self._current()
        for core in sorted(self._all, key=lambda core: core != here):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, core)
            except OSError:
                continue
            os.sched_setaffinity(0, {core})
            return core
        return None


def computing() -> AbstractContextManager[None]:
    """Around one call: Cores.one() when cores are shared out here, else nothing."""
    return nullcontext() if _cores is None else _cores.one()


_cores = Cores(os.environ[SETTING]) if SETTING in os.environ else None
