"""The keeper: starts this machine's node, and starts it again when it ends otherwise than in order.

What heart or systemd would do, for machines without systemd and for people without root. The node
reads the end of a pipe that the keeper holds (baguette_guard.erl), so a killed keeper leaves no
node behind, and a node's workers end with it. A node that ended in order (`make leave`, SIGTERM)
or refused its settings is not started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from types import FrameType
from typing import IO

from launcher.erlang import environment
from launcher.member import Member
from launcher.options import ROOT
from launcher.processes import Process, Refused, in_session, wait_gone

FIRST_WAIT = 0.2
LONGEST_WAIT = 30.0
HEALTHY = 60.0  # a node that lived this long is started again at once
IN_ORDER, REFUSED = 0, 78  # 78: EX_CONFIG, said by baguette_app:boot/0
NOT_STARTED = 127  # as a shell says it
LOG_BYTES = 10 << 20


class Keeper:
    """Runs one node until it ends in order; its exit status is that of the last run."""

    def __init__(self, member: Member) -> None:
        self.member = replace(member, keeper=Process.of(os.getpid()), deaths=0)
        self.stopping = threading.Event()
        self.popen: subprocess.Popen[bytes] | None = None

    def keep(self) -> int:
        """Until the node ends in order, is told to, or refuses to start."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self.member.save()
        wait = FIRST_WAIT
        while True:
            begun = time.monotonic()
            status = self._run()
            if self.stopping.is_set() or status in (IN_ORDER, REFUSED):
                self._say(what="node_ended", status=status)
                return 0 if self.stopping.is_set() else status
            healthy = time.monotonic() - begun > HEALTHY
            wait = FIRST_WAIT if healthy else wait
            self.member = replace(self.member, deaths=0 if healthy else self.member.deaths + 1)
            with contextlib.suppress(OSError):  # a full disk, as in _say
                self.member.save()
            self._say(what="node_died", status=status, again_in_s=wait)
            if self.stopping.wait(wait):
                return 0
            wait = min(2 * wait, LONGEST_WAIT)

    def _run(self) -> int:
        """One life of the node; what keeps it from starting counts as a death."""
        try:
            return self._live()
        except (OSError, Refused) as error:
            self._say(what="node_not_started", why=str(error))
            return NOT_STARTED

    def _live(self) -> int:
        """Start the node and wait for its end; nothing of it is left when this returns."""
        guard_read, guard_write = os.pipe()
        try:
            with self._log() as log:
                self.popen = subprocess.Popen(
                    self.member.command(),
                    stdin=guard_read,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment(self.member.run),
                    cwd=ROOT,
                    start_new_session=True,
                )
            if self.stopping.is_set():  # told to before there was anybody to tell
                self.popen.terminate()
            self._say(what="node_started", os_pid=self.popen.pid)
            status = self.popen.wait()
            # Workers end with their node; whatever else it had started might not.
            for process in wait_gone(in_session(self.popen.pid), 2.0):
                process.signal(signal.SIGKILL)
            return status
        finally:
            self.popen = None
            for fd in (guard_read, guard_write):
                with contextlib.suppress(OSError):
                    os.close(fd)

    def _log(self) -> IO[bytes]:
        """The node's log, begun anew when it has become long."""
        path = self.member.log
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping.set()
        if self.popen is not None:
            self.popen.terminate()

    def _say(self, **facts: object) -> None:
        # A full disk is no reason to end a node that runs.
        with contextlib.suppress(OSError), self._log() as log:
            log.write((json.dumps({"keeper": os.getpid(), **facts}) + "\n").encode())
