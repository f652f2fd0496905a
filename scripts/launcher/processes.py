"""Processes that are ours, and ending them without ever touching another's.

A process is known by its id, its start time and the boot it belongs to: ids are reused, so a bare
number read from a file is never signalled. Signals go through a pidfd that was opened before the
start time was compared. Linux only, as are addresses like 127.0.0.2 without set-up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


class Refused(Exception):
    """The command cannot be done now; the message says why and what to do."""


def no_file(error: OSError) -> str:
    """What a person is told of a file that cannot be read or written."""
    name = error.filename or "a file"
    return f"{name}: {error.strerror or error}; make room, make it yours, or choose another place"


@dataclass(frozen=True)
class Process:
    """One process, for ever: a later process with the same id is not equal to it."""

    pid: int
    started: int  # clock ticks since boot
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this id now, if any."""
        started = _started(pid)
        return None if started is None else cls(pid, started, boot_id())

    def alive(self) -> bool:
        """Is it still there (a zombie is not)?"""
        return self.boot == boot_id() and _started(self.pid) == self.started

    def began(self) -> float:
        """When it was started, in seconds since 1970."""
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + self.started / os.sysconf("SC_CLK_TCK")

    def signal(self, number: signal.Signals) -> None:
        """Signal it, if it is still itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            fd = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(fd, number)
            finally:
                os.close(fd)

    def descendants(self) -> list[Process]:
        """Its children and theirs, as they are now."""
        if not self.alive():
            return []
        try:
            children = psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []
        found = [Process.of(child.pid) for child in children]
        return [process for process in found if process is not None]


def boot_id() -> str:
    """Changes with every boot, and so makes start times comparable."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def in_session(leader: int) -> list[Process]:
    """Every process of the session that this process id leads, or led."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(int(entry)) == leader:
                found.append(Process.of(int(entry)))
    return [process for process in found if process is not None]


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Those still alive after at most `seconds`."""
    until = time.monotonic() + seconds
    left = [process for process in processes if process.alive()]
    while left and time.monotonic() < until:
        time.sleep(0.02)
        left = [process for process in left if process.alive()]
    return left


def end_all(nodes: list[Process], patience: float) -> None:
    """As `end`; Refused names what could not be ended."""
    left = end(nodes, patience)
    if left:
        ids = " ".join(str(process.pid) for process in left)
        raise Refused(f"these processes would not end: {ids}; end them by hand (kill -9)")


def end(nodes: list[Process], patience: float) -> list[Process]:
    """End Erlang nodes and whatever they started: orderly, then by force. Returns what is left.

    SIGTERM is an orderly stop for an Erlang node, and its workers end with it; both get their
    time, and what outlives it (a stopped process does) is killed.
    """
    family = [child for node in nodes for child in node.descendants()]
    for node in nodes:
        node.signal(signal.SIGTERM)
        node.signal(signal.SIGCONT)
    late = wait_gone(nodes, patience)
    family += [child for node in late for child in node.descendants()]
    for process in late:
        process.signal(signal.SIGKILL)
    wait_gone(nodes, 2.0)
    for process in wait_gone(family, 1.0):
        process.signal(signal.SIGKILL)
    return wait_gone([*nodes, *family], 3.0)
