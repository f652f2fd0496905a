"""Runs ErlPort's messages: a reader thread takes frames, the main thread computes.

In:  {'C', Id, Module, Function, [Payload, ...]}  call an entry point, bytes in, bytes out
     {'M', {cancel, Id}}                          drop Id if it has not begun (no answer then)
Out: {'r', Id, Result}
     {'r', Id, [{ok, Result} | {error, Error}, ...]}  of several payloads, each a call of its own
     {'e', Id, Error}
Error is {python, Class, Message, Traceback}, Class one of `errors`' names.

Answers come in the order of completion. Only functions in the worker's own table can be called.
The process ends at end-of-file, on a broken frame, and on a lost device: everything it held dies
with it, and its owner (baguette_engine_worker.erl) starts another.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baguette.errors import BaguetteError, DeviceLost, port_class
from baguette.worker.company import Answer
from baguette.worker.cores import computing
from baguette.worker.frame import FrameError, FrameReader, FrameWriter
from baguette.worker.spent import spent
from baguette.worker.term import Atom, TermError, decode, encode

EntryPoint = Callable[[bytes], bytes]
Entries = Mapping[tuple[str, str], EntryPoint]
# Entry points that take several calls as one.
Together = Mapping[tuple[str, str], Callable[[Sequence[bytes]], list[Answer]]]

EXIT_EOF = 0
EXIT_BROKEN_STREAM = 3
EXIT_DEVICE_LOST = 4
MAX_MESSAGE = 1000
MAX_TRACEBACK = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call as it came: its id, what it names, and its arguments, unchecked.

    When its frame was read, and decoded (time.perf_counter_ns()).
    """

    id: int
    target: tuple[str, str]
    args: list[Any]
    read_at: int
    decoded_at: int


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

    def __init__(
        self, entries: Entries, together: Together, reader: FrameReader, writer: FrameWriter
    ) -> None:
        self._entries = entries
        self._together = together
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
        read_at = time.perf_counter_ns()
        match decode(frame):
            case (Atom("C"), int(call_id), Atom(module), Atom(function), list(args)):
                target, decoded_at = (str(module), str(function)), time.perf_counter_ns()
                self._calls.add(Call(call_id, target, args, read_at, decoded_at))
            case (Atom("M"), (Atom("cancel"), int(call_id))):
                self._calls.cancel(call_id)
            case (Atom("M"), _):
                log.warning("a message of unknown shape was dropped")
            case _:
                raise TermError("a frame is neither a call nor a message")

    def run(self, call: Call) -> None:
        """Run one frame's calls and answer them, whatever happens inside."""
        failed: list[Exception] = []
        spent.begin(call.read_at, call.decoded_at)
        try:
            with computing():
                spent.mark("core")
                result = self._result(call, failed)
            pieces = encode((Atom("r"), call.id, result))
            spent.end(call.id, call.target[1])
            self._writer.write(pieces)
        except Exception as error:  # the boundary: every failure becomes an answer with a class
            failed.append(error)
            self._writer.write(encode((Atom("e"), call.id, _describe(error))))
        for one in failed:
            log.warning("call %s failed: %s: %s", call.target, type(one).__name__, one)
        if any(port_class(one) == DeviceLost.name for one in failed):
            os._exit(EXIT_DEVICE_LOST)

    def _result(self, call: Call, failed: list[Exception]) -> bytes | list[Any]:
        """What the entry point says; of several calls those that failed are added to `failed`."""
        several = self._together.get(call.target)
        if len(call.args) > 1 and several is not None:
            answers = several(call.args)
            failed += [answer for answer in answers if isinstance(answer, Exception)]
            return [_one(answer) for answer in answers]
        entry = self._entries.get(call.target)
        if entry is None:
            raise BaguetteError(f"{call.target[0]}:{call.target[1]} is not an entry point")
        return entry(*call.args)


def _one(answer: Answer) -> tuple[Any, ...]:
    if isinstance(answer, Exception):
        return Atom("error"), _describe(answer)
    return Atom("ok"), answer


def _describe(error: Exception) -> tuple[Any, ...]:
    trace = "".join(traceback.format_tb(error.__traceback__))[-MAX_TRACEBACK:]
    message = f"{error}"[:MAX_MESSAGE]
    return (Atom("python"), Atom(port_class(error)), message.encode(), trace.encode())
