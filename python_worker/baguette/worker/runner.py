"""Runs ErlPort's messages: a reader thread takes frames, the main thread computes.

In:  {'C', Id, Module, Function, [Payload, ...]}  call an entry point, bytes in, bytes out
     {'C', Id, Module, Function, [Payload, ...], {Group, Rows, Most}}  which may have company
     {'M', {cancel, Id}}                          drop Id if it has not begun (no answer then)
Out: {'r', Id, Result}
     {'r', Id, [{ok, Result} | {error, Error}, ...]}  of several payloads, each a call of its own
     {'e', Id, Error}
     {'M', {begun, [Id, ...]}}                    several frames are computed as one from now on
Error is {python, Class, Message, Traceback}, Class one of `errors`' names.

What has come of a frame's group, right after it and of no more than `Most` rows with it, when the
device is there is computed with it: who waits for a device waits with an open door.

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
from baguette.worker.company import Answer, split
from baguette.worker.cores import computing
from baguette.worker.frame import FrameError, FrameReader, FrameWriter, framed
from baguette.worker.spent import spent
from baguette.worker.term import Atom, TermError, decode, encode

EntryPoint = Callable[[bytes], bytes]
Entries = Mapping[tuple[str, str], EntryPoint]
# Entry points that take several calls as one.
Together = Mapping[tuple[str, str], Callable[[Sequence[bytes]], list[Answer]]]

# What a frame is answered.
Result = bytes | list[Any] | Exception

EXIT_EOF = 0
EXIT_BROKEN_STREAM = 3
EXIT_DEVICE_LOST = 4
MAX_MESSAGE = 1000
MAX_TRACEBACK = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One call as it came: its id, what it names, and its arguments, unchecked.

    Which others it may be computed with, and when its frame was read, and decoded
    (time.perf_counter_ns()).
    """

    id: int
    target: tuple[str, str]
    args: list[Any]
    company: Company | None
    read_at: int
    decoded_at: int


@dataclass(frozen=True)
class Company:
    """Calls of one group may go together while they have no more rows than the first one says."""

    group: int
    rows: int
    most: int


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

    def company_of(self, first: Call) -> list[Call]:
        """It and those right behind it that go with it, which are taken."""
        taken = [first]
        if first.company is None:
            return taken
        room = first.company.most - first.company.rows
        with self._changed:
            while self._waiting:
                call = self._waiting[0]
                if call.target != first.target or call.company is None:
                    break
                if call.company.group != first.company.group or call.company.rows > room:
                    break
                room -= call.company.rows
                taken.append(self._waiting.popleft())
        return taken


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
            case (Atom("C"), int(call_id), Atom(module), Atom(function), list(args), *rest):
                target, decoded_at = (str(module), str(function)), time.perf_counter_ns()
                company = _company(rest)
                self._calls.add(Call(call_id, target, args, company, read_at, decoded_at))
            case (Atom("M"), (Atom("cancel"), int(call_id))):
                self._calls.cancel(call_id)
            case (Atom("M"), _):
                log.warning("a message of unknown shape was dropped")
            case _:
                raise TermError("a frame is neither a call nor a message")

    def run(self, first: Call) -> None:
        """Run a frame's calls, and those of its company, and answer them, whatever happens."""
        failed: list[Exception] = []
        spent.begin(first.read_at, first.decoded_at)
        with computing():
            spent.mark("core")
            calls = self._calls.company_of(first)
            if len(calls) > 1:
                begun = (Atom("begun"), [call.id for call in calls])
                self._writer.write(framed(encode((Atom("M"), begun))))
            results = self._results(calls, failed)
            frames = [_answer(*one, failed) for one in zip(calls, results, strict=True)]
            if not isinstance(results[0], Exception):
                spent.end(first.id, first.target[1], sum(len(call.args) for call in calls))
            # Still on its core: whoever left it would wait for one to say what it has.
            self._writer.write(*frames)
        for one in failed:
            log.warning("call %s failed: %s: %s", first.target, type(one).__name__, one)
        if any(port_class(one) == DeviceLost.name for one in failed):
            os._exit(EXIT_DEVICE_LOST)

    def _results(self, calls: Sequence[Call], failed: list[Exception]) -> list[Result]:
        """What each frame is answered; what failed is added to `failed`."""
        args = [arg for call in calls for arg in call.args]
        target = calls[0].target
        several = self._together.get(target)
        try:
            if len(args) > 1 and several is not None:
                answers = split(several(args), [len(call.args) for call in calls])
                failed += [one for of in answers for one in of if isinstance(one, Exception)]
                return [_of_frame(of) for of in answers]
            entry = self._entries.get(target)
            if entry is None:
                raise BaguetteError(f"{target[0]}:{target[1]} is not an entry point")
            return [entry(*args)]
        except Exception as error:  # the boundary: every failure becomes an answer with a class
            failed.append(error)
            return [error for _ in calls]


def _answer(call: Call, result: Result, failed: list[Exception]) -> bytes:
    if not isinstance(result, Exception):
        try:
            return framed(encode((Atom("r"), call.id, result)))
        except Exception as error:  # the same boundary: it may be too large for a frame
            failed.append(error)
            result = error
    return framed(encode((Atom("e"), call.id, _describe(result))))


def _company(rest: Sequence[Any]) -> Company | None:
    match rest:
        case []:
            return None
        case [(int(group), int(rows), int(most))]:
            return Company(group, rows, most)
        case _:
            raise TermError("a call says of its company what is not spoken here")


def _of_frame(answers: Sequence[Answer]) -> Result:
    """A frame of one call is answered as such, one that failed with its error."""
    return answers[0] if len(answers) == 1 else [_one(answer) for answer in answers]


def _one(answer: Answer) -> tuple[Any, ...]:
    if isinstance(answer, Exception):
        return Atom("error"), _describe(answer)
    return Atom("ok"), answer


def _describe(error: Exception) -> tuple[Any, ...]:
    trace = "".join(traceback.format_tb(error.__traceback__))[-MAX_TRACEBACK:]
    message = f"{error}"[:MAX_MESSAGE]
    return (Atom("python"), Atom(port_class(error)), message.encode(), trace.encode())
