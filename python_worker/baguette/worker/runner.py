"""Runs ErlPort's messages: a reader thread takes frames, the main thread computes.

In:  {'C', Id, Module, Function, [Payload]}   call an entry point, bytes in, bytes out
     {'M', {cancel, Id}}                      drop call Id if it has not begun (no answer then)
Out: {'r', Id, Result}
     {'e', Id, {python, Class, Message, Traceback}}   Class is one of `errors`' names

Answers come in the order of completion. Only functions in the worker's own table can be called.
The process ends at end-of-file, on a broken frame, and on a lost device: everything it held dies
with it, and its owner (baguette_engine_worker.erl) starts another.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from baguette.errors import BaguetteError, DeviceLost, port_class
from baguette.worker.cores import computing
from baguette.worker.frame import FrameError, FrameReader, FrameWriter
from baguette.worker.term import Atom, TermError, decode, encode

EntryPoint = Callable[[bytes], bytes]
Entries = Mapping[tuple[str, str], EntryPoint]

EXIT_EOF = 0
EXIT_BROKEN_STREAM = 3
EXIT_DEVICE_LOST = 4
MAX_MESSAGE = 1000
MAX_TRACEBACK = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call as it came: its id, what it names, and its arguments, unchecked."""

    id: int
    target: tuple[str, str]
    args: list[Any]


class Calls:
    """Calls not yet begun, oldest first; the reader adds and cancels, the main thread takes."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()
        self._changed = threading.Condition()

    def add(self, call: Call) -> None:
        with self._changed:
            self._waiting.append(call)
            self._changed.notify()

    def cancel(self, call_id: int) -> None:
        with self._changed:
            self._waiting = deque(call for call in self._waiting if call.id != call_id)

    def take(self) -> Call:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            return self._waiting.popleft()


class Runner:
    """Serve one port until it closes."""

    def __init__(self, entries: Entries, reader: FrameReader, writer: FrameWriter) -> None:
        self._entries = entries
        self._reader = reader
        self._writer = writer
        self._calls = Calls()

    def serve(self) -> None:
        """Compute on this thread for ever; the reader thread ends the process."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        while True:
            self.run(self._calls.take())

    def _read(self) -> None:
        code = EXIT_EOF
        try:
            while (frame := self._reader.read()) is not None:
                self.receive(frame)
        except (FrameError, TermError) as error:
            log.error("the port's stream is broken: %s", error)
            code = EXIT_BROKEN_STREAM
        # Not sys.exit: the main thread may be deep in a kernel and must not be waited for.
        os._exit(code)

    def receive(self, frame: memoryview) -> None:
        """Take one frame: queue a call, obey a cancel, refuse the rest."""
        match decode(frame):
            case (Atom("C"), int(call_id), Atom(module), Atom(function), list(args)):
                self._calls.add(Call(call_id, (str(module), str(function)), args))
            case (Atom("M"), (Atom("cancel"), int(call_id))):
                self._calls.cancel(call_id)
            case (Atom("M"), _):
                log.warning("a message of unknown shape was dropped")
            case _:
                raise TermError("a frame is neither a call nor a message")

    def run(self, call: Call) -> None:
        """Run one call and answer it, whatever happens inside."""
        try:
            entry = self._entry(call)
            with computing():
                result = entry(*call.args)
            self._writer.write(encode((Atom("r"), call.id, result)))
        except Exception as error:  # the boundary: every failure becomes an answer with a class
            log.warning("call %s failed: %s: %s", call.target, type(error).__name__, error)
            self._writer.write(encode((Atom("e"), call.id, _describe(error))))
            if port_class(error) == DeviceLost.name:
                os._exit(EXIT_DEVICE_LOST)

    def _entry(self, call: Call) -> EntryPoint:
        entry = self._entries.get(call.target)
        if entry is None:
            raise BaguetteError(f"{call.target[0]}:{call.target[1]} is not an entry point")
        return entry


def _describe(error: Exception) -> tuple[Any, ...]:
    trace = "".join(traceback.format_tb(error.__traceback__))[-MAX_TRACEBACK:]
    message = f"{error}"[:MAX_MESSAGE]
    return (Atom("python"), Atom(port_class(error)), message.encode(), trace.encode())
