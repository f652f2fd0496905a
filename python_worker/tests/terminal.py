"""The package's command line under a real terminal (a pty), for tests of what a person sees."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
HERE = {"PYTHONPATH": str(PACKAGE), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


class Terminal:
    """`python -m baguette WORDS` under a terminal of 100 columns and 30 rows."""

    def __init__(self, words: list[str], **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(30, 100)
        self.before = termios.tcgetattr(self.ours)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "baguette", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, **HERE, **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, wanted: bytes, seconds: float = 20.0) -> bytes:
        """Read until `wanted` was shown since the last time; what was shown before it."""
        deadline = time.monotonic() + seconds
        while wanted not in self.shown:
            ready, _, _ = select.select([self.ours], [], [], deadline - time.monotonic())
            assert ready, self.shown
            self.shown += os.read(self.ours, 65536)
        before, _, self.shown = self.shown.partition(wanted)
        return before

    def key(self, key: bytes) -> None:
        os.write(self.ours, key)

    def close(self) -> int:
        """The exit status, the terminal being as it was."""
        status = self.process.wait(20)
        assert termios.tcgetattr(self.ours) == self.before
        os.close(self.ours)
        return status
