"""One computing worker per core, where many workers share a machine.

Two experts of one step are asked at the same moment. The kernel often wakes both on the core that
their question came from, and for a call of two milliseconds it never moves one of them away: they
run one after the other while another core idles. So a call first takes a core's lock, its own
core's if that is free, and computes there. With every core taken it waits until one is left: a
dozen workers in turns of a core's time slice would find their caches cold at every turn, and while
a worker waits more calls come, which it then computes as one batch (`runner.py`).

Erlang needs those cores as well, for a tenth of a millisecond at a time: to hand the step's other
question on, for one. The kernel lets who computes go on for milliseconds first, on whichever core
the waker chose. So who computes gives way when it has its core, and before every
layer of an expert, of the router and of the decoder.

The locks are byte ranges of one file (setting BAGUETTE_CORES, given by the launcher of a cluster on
one machine); they go when the process dies. Who waits is woken by whoever leaves a core (a futex in
that file); one that waited for PATIENCE_S, as for a process that was stopped, computes wherever the
kernel likes. Without the setting nothing is locked, pinned or waited for.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SETTING = "BAGUETTE_CORES"
PATIENCE_S = 0.25
# The number of futex(2); elsewhere nobody waits.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
_WAIT, _WAKE = 0, 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Cores:
    """The cores of this machine that this process may use, and who computes on which."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._all = frozenset(os.sched_getaffinity(0))
        libc = ctypes.CDLL(None, use_errno=True)
        self._current, self._syscall = libc.sched_getcpu, libc.syscall
        os.ftruncate(self._fd, mmap.PAGESIZE)
        # Counts the times that a core was left.
        self._left = ctypes.c_uint32.from_buffer(mmap.mmap(self._fd, mmap.PAGESIZE))

    @contextmanager
    def one(self) -> Iterator[None]:
        """Compute on a core that no other worker computes on, if there is one soon."""
        core = self._take()
        try:
            os.sched_yield()
            yield
        finally:
            if core is not None:
                self._leave(core)
                os.sched_setaffinity(0, self._all)

    def _take(self) -> int | None:
        until = time.monotonic() + PATIENCE_S
        while True:
            left = self._left.value
            core = self._free()
            patience = until - time.monotonic()
            if core is not None or patience <= 0 or not self._wait(left, patience):
                return core

    def _wait(self, left: int, seconds: float) -> bool:
        """Until a core was left since the count was this; False where waiting is not possible."""
        if _FUTEX is None:
            return False
        time_out = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        word = ctypes.byref(self._left)
        if self._syscall(_FUTEX, word, _WAIT, left, ctypes.byref(time_out), None, 0) == 0:
            return True
        return ctypes.get_errno() in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)

    def _free(self) -> int | None:
        here = self._current()
        for core in sorted(self._all, key=lambda core: core != here):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, core)
            except OSError:
                continue
            try:
                os.sched_setaffinity(0, {core})
            except OSError:  # no longer ours
                self._leave(core)
                continue
            return core
        return None

    def _leave(self, core: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, core)
        # Two that count at once may count one: who looked before sees a change all the same. One
        # that stood still while others counted may set it back; patience ends what comes of that.
        self._left.value = (self._left.value + 1) & 0xFFFFFFFF
        if _FUTEX is not None:
            self._syscall(_FUTEX, ctypes.byref(self._left), _WAKE, 1, None, None, 0)


def computing() -> AbstractContextManager[None]:
    """Around one call: Cores.one() when cores are shared out here, else nothing."""
    return nullcontext() if _cores is None else _cores.one()


def give_way_before(layers: Iterable[nn.Module]) -> None:
    """Whoever waits for the core that one of these layers is to be computed on has it first.

    Nothing is changed where cores are not shared out.
    """
    if _cores is not None:
        for layer in layers:
            layer.register_forward_pre_hook(_give_way)


def _give_way(*_: object) -> None:
    os.sched_yield()


_cores = Cores(os.environ[SETTING]) if SETTING in os.environ else None
