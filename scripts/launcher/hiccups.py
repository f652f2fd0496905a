"""Whether this machine stood still while something was timed on it.

Used by trials whose figures are of milliseconds (launcher/trials_straggler.py): a machine that
does other things besides, or a virtual one that is stopped, makes everybody look slow at once.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

LOOK_SECONDS = 0.005


class Hiccups:
    """A thread that sleeps a little at a time; `longest_ms` is the most it overslept."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Hiccups:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        before = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            now = time.monotonic()
            late = now - before - LOOK_SECONDS
            self.longest_ms = max(self.longest_ms, round(1000 * late, 2))
            before = now
