"""The control node: a hidden Erlang node that speaks JSON lines.

Its other half is apps/baguette/src/baguette_control.erl. The only way this launcher talks to a
running cluster. It ends when its standard input is closed, so also when we die; a generation it
asked for is cancelled with it.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from launcher.erlang import Atom, Target, control_flags, environment, last_words, term
from launcher.options import ROOT
from launcher.processes import Process, Refused, end

Event = dict[str, Any]


class Control:
    """A context manager around one control node that talks to one node of a cluster.

    Who has several at once gives each a name. Each event says when it was `heard`: the clock of
    time.time(), which is also that of the nodes of this machine.
    """

    def __init__(self, target: Target, name: str = "control") -> None:
        self.events: queue.Queue[Event | None] = queue.Queue()
        self.log: Path = target.run / f"{name}.log"
        self.popen = start(target, name, self.log)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            try:
                self.events.put({**json.loads(line), "heard": time.time()})
            except ValueError:
                self.events.put({"event": "noise", "text": line.decode(errors="replace")})
        self.events.put(None)

    def ask(self, do: str, **more: Any) -> None:
        """Send one command; its answers come through `answers`."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise Refused(self._epitaph()) from None

    def answers(self, *last: str) -> Iterator[Event]:
        """Events up to and including one of `last`; None every second in which nothing came.

        A `failed` event raises Refused with its sentence.
        """
        while True:
            try:
                event = self.events.get(timeout=1.0)
            except queue.Empty:
                yield {"event": "quiet"}
                continue
            if event is None:
                raise Refused(self._epitaph())
            if event["event"] == "failed":
                raise Refused(event["sentence"])
            yield event
            if event["event"] in last:
                return

    def answer(self, last: str) -> Event:
        """The one event that ends a command."""
        *_, event = self.answers(last)
        return event

    def connect(self, seconds: float) -> None:
        """Reach that node; Refused when it does not answer in time."""
        self.ask("connect", deadline_ms=int(seconds * 1000))
        self.answer("connected")

    def _epitaph(self) -> str:
        return f"the control node ended; its last words (all: {self.log}):\n{last_words(self.log)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        process = Process.of(self.popen.pid)
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        try:
            self.popen.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            end([process] if process is not None else [], 1.0)


def start(target: Target, name: str, log: Path) -> subprocess.Popen[bytes]:
    """Its process alone: commands are lines of its standard input, events of its output."""
    config = target.run / f"{name}.config"
    config.write_text(term([_kernel(), _face(target.node)]) + ".\n", encoding="ascii")
    with log.open("wb") as words:
        return subprocess.Popen(
            [
                *control_flags(target, name),
                "-noinput",
                *("-config", str(config.with_suffix(""))),
                *("-eval", "ok = application:load(baguette), baguette_control:start()"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env=environment(target.run),
            cwd=ROOT,
            start_new_session=True,
        )


def _kernel() -> tuple[Any, ...]:
    """Standard output is for events alone, so the log goes to standard error."""
    handler = "{handler,default,logger_std_h,#{config=>#{type=>standard_error}}}"
    return (Atom("kernel"), [(Atom("logger"), [Atom(handler)])])


def _face(requester: str) -> tuple[Any, ...]:
    return (Atom("baguette"), [(Atom("control_node"), Atom(f"'{requester}'"))])
