"""Runs ErlPort's messages, on one thread: reads what has come, computes, answers.

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

Nothing is read while something is computed: what comes meanwhile is in the pipe, and little of it
(baguette_engine_calls.erl). A second thread that reads would be one more to wake for every call,
and would want the interpreter from the one that computes.

Only functions in the worker's own table can be called. The process ends at end-of-file, on a broken
frame, and on a lost device: everything it held dies with it, and its owner
(baguette_engine_worker.erl) starts another.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from baguette.errors import BaguetteError, DeviceLost, port_class
from baguette.worker.company import Answer, split
from baguette.worker.cores import computing
from baguette.worker.frame import EndOfStream, FrameError, FrameReader, FrameWriter, framed
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

    def joins(self, others: Sequence[Call]) -> bool:
        """Whether it may be computed with them, who may be with each other."""
        first = others[0]
        if self.company is None or first.company is None or self.target != first.target:
            return False
        rows = sum(call.company.rows for call in (*others, self) if call.company)
        return self.company.group == first.company.group and rows <= first.company.most


@dataclass(frozen=True)
class Company:
    """Calls of one group may go together while they have no more rows than the first one says."""

    group: int
    rows: int
    most: int


class Calls:
    """Calls not yet begun, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Call] = deque()

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def cancel(self, call_id: int) -> None:
        self._waiting = deque(call for call in self._waiting if call.id != call_id)

    def first(self) -> Call | None:
        """Whose turn it is; it stays."""
        return self._waiting[0] if self._waiting else None

    def take(self) -> list[Call]:
        """The first, and those right behind it that go with it."""
        taken = [self._waiting.popleft()] if self._waiting else []
        while self._waiting and self._waiting[0].joins(taken):
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
        """Read, and compute what is first, for ever; the port's end ends the process."""
        try:
            while True:
                if (first := self._calls.first()) is None:
                    self.receive(self._reader.read())
                else:
                    self.run(first)
        except EndOfStream:
            code = EXIT_EOF
        except (FrameError, TermError) as error:
            log.error("the port's stream is broken: %s", error)
            code = EXIT_BROKEN_STREAM
        # Not sys.exit: a library's own threads must not be waited for.
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
        """Run what is first once there is a core, with its company; answer, come what may."""
        failed: list[Exception] = []
        spent.begin(first.read_at, first.decoded_at)
        # What is no batch - to load, to measure - may take seconds, and needs no core of its own.
        with computing() if first.target in self._together else nullcontext():
            spent.mark("core")
            while self._reader.is_there():
                self.receive(self._reader.read())
            calls = self._calls.take()
            if not calls:  # cancelled meanwhile
                return
            if len(calls) > 1:
                begun = (Atom("begun"), [call.id for call in calls])
                self._writer.write(framed(encode((Atom("M"), begun))))
            results = self._results(calls, failed)
            frames = [_answer(*one, failed) for one in zip(calls, results, strict=True)]
            if not isinstance(results[0], Exception):
                together = sum(len(call.args) for call in calls)
                spent.end(calls[0].id, calls[0].target[1], together)
            # Still on its core: whoever left it would wait for one to say what it has.
            self._writer.write(*frames)
        for one in failed:
            log.warning("call %s failed: %s: %s", calls[0].target, type(one).__name__, one)
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
