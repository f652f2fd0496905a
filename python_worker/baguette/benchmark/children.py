"""The processes that measure, as their starter sees them: started, asked, ended.

Called by `measuring`. They are in a session of their own, so that Ctrl-C reaches the starter alone,
which ends them; where the starter dies otherwise they read the end of their input and go.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baguette.errors import BaguetteError, OutOfMemory, WeightsError

PACKAGES = Path(__file__).resolve().parents[2]
_LAST = 4096


class ChildFailed(BaguetteError):
    """What a measuring process said when it could not go on, or that it died."""


@contextlib.contextmanager
def child(kind: str, **job: Any) -> Iterator[Child]:
    """A process for this job, ended with the block.

    An interrupt waits until the process is known to the block: one that came while it was being
    started would leave it behind.
    """
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
    try:
        started = Child(kind, **job)
        try:
            signal.signal(signal.SIGINT, before)
            if seen:
                raise KeyboardInterrupt
            yield started
        finally:
            started.close()
    finally:
        signal.signal(signal.SIGINT, before)


class Child:
    """One such process; `child` starts and ends it."""

    def __init__(self, kind: str, **job: Any) -> None:
        paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [sys.executable, "-m", "baguette.benchmark.child", json.dumps({"kind": kind, **job})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ready(self) -> dict[str, Any]:
        """What it tells of itself once it has loaded and warmed up."""
        return self._answer("ready")

    def run(self) -> dict[str, float]:
        """One measurement: seconds by name."""
        self._tell("run")
        return self._answer("ran")

    def end(self) -> dict[str, int]:
        """Its peaks of memory in bytes."""
        self._tell("end")
        return self._answer("ended")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ChildFailed(self._death()) from None

    def _answer(self, name: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(self._death())
        values = json.loads(line)
        if "failed" in values:
            damaged = values["failed"] == WeightsError.name  # no setting's fault
            raise (WeightsError if damaged else ChildFailed)(values["sentence"])
        return values[name]

    def _death(self) -> str:
        """How it ended: what it last wrote, or the signal that took it."""
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return f"the measuring process was killed: {OutOfMemory.name.replace('_', ' ')}?"
        if status < 0:
            return f"the measuring process died of {signal.Signals(-status).name}"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _LAST))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the measuring process ended with {status}: {lines[-1] if lines else 'no word'}"
