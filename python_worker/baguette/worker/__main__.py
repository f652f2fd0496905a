"""The worker's OS process: `python -m baguette.worker pipeline|expert`, started by Erlang.

Speaks on file descriptors 3 (in) and 4 (out), so that whatever a C library prints to stdout goes
to the log instead of the stream. Ends at end-of-file and when its parent dies.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime

from baguette.worker import expert_entry, pipeline_entry
from baguette.worker.frame import FrameReader, FrameWriter
from baguette.worker.runner import EXIT_EOF, Runner

READ_FD, WRITE_FD = 3, 4
_PR_SET_PDEATHSIG = 1
ENTRIES = {"pipeline": pipeline_entry, "expert": expert_entry}


class JsonLines(logging.Formatter):
    """One JSON line a record, under 4 KB; fields as in a node's log (docs/internals/events.md)."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "what": record.getMessage()[:2000],
        }
        return json.dumps(line)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies: a stopped process would ignore SIGTERM."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request was in force
        sys.exit(EXIT_EOF)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m baguette.worker",
        description="The computing half of a node; Erlang starts it on descriptors 3 and 4.",
    )
    parser.add_argument("kind", choices=sorted(ENTRIES))
    kind = parser.parse_args().kind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with_parent()
    try:
        reader, writer = FrameReader(READ_FD), FrameWriter(WRITE_FD)
        for fd in (READ_FD, WRITE_FD):  # what a library starts must not have our stream
            os.set_inheritable(fd, False)
    except OSError:
        parser.error("descriptors 3 and 4 are not open; this program is started by a Baguette node")
    os.dup2(2, 1)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    Runner(ENTRIES[kind].ENTRIES, ENTRIES[kind].TOGETHER, reader, writer).serve()


if __name__ == "__main__":
    main()
