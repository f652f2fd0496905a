"""The real worker with a fault: what a broken library, device or payload does to its process.

Started by tests/faulty/python as a node starts `python -m baguette.worker KIND`. The file that
BAGUETTE_FAULT names is read at every call and says what goes wrong, as a JSON map:

    do      die | stop | out_of_memory | memory_error | print | twice | nobody | malformed |
            endless | huge
    on      the entry point at whose calls it happens
    prompt  only at expert calls for this prompt (a poisoned request)
    rows    only at calls of more rows than so many
    times   only so often, in all processes together
    id      which fault this is, where several follow each other

Every time it happens a byte is added to FILE.ID.done: a call that is still being computed when the
next fault is told counts for its own. An empty file is no fault.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import baguette.worker.__main__ as worker
from baguette.worker.company import Answer
from baguette.worker.frame import MAX_FRAME, FrameWriter, framed
from baguette.worker.payload import unpack
from baguette.worker.term import Atom, encode

FILE = Path(os.environ["BAGUETTE_FAULT"])
HASH = FILE.with_name(f"{FILE.name}.hash")
Fault = dict[str, Any]
T = TypeVar("T")
EntryPoint = Callable[[bytes], bytes]


def fault() -> Fault:
    """What is to go wrong now."""
    text = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    return json.loads(text) if text else {}


def strikes(function: str, payload: bytes) -> Fault:
    """The fault, where it is one of this call; it is then counted."""
    told = fault()
    if told.get("on") != function or not _concerns(told, payload):
        return {}
    with FILE.with_name(f"{FILE.name}.{told.get('id', 0)}.done").open("ab") as done:
        if done.tell() >= told.get("times", 1 << 30):
            return {}
        done.write(b".")
    return told


def _concerns(told: Fault, payload: bytes) -> bool:
    values = unpack(payload)
    rows = values.get("rows", [])
    if "prompt" in told:
        poison = HASH.read_text() if HASH.exists() else ""
        return any(row["context"] == poison for row in rows)
    return len(rows) > told.get("rows", -1)


def remember(function: str, payload: bytes, answer: bytes) -> None:
    """The pipeline worker tells the expert workers which context is the poisoned prompt's."""
    if function == "encode" and unpack(payload)["prompt"] == fault().get("prompt"):
        HASH.write_text(unpack(answer)["context"]["hash"])


class FaultyWriter(FrameWriter):
    """Writes what the fault of the call in hand makes of its answer."""

    do = ""

    def write(self, *frames: bytes) -> None:
        """The answer, or what comes in its place."""
        do, FaultyWriter.do = FaultyWriter.do, ""
        if do == "nobody":
            super().write(framed(encode((Atom("r"), 1 << 40, b""))))
        if do == "malformed":
            frames = (framed([b"these bytes are no term"]),)
        if do == "endless":
            os.write(worker.WRITE_FD, struct.pack(">I", 1 << 30))
            return
        super().write(*frames)
        if do == "twice":
            super().write(*frames)


def going_wrong(function: str, entry: EntryPoint) -> EntryPoint:
    """An entry point with the fault around it."""

    def call(payload: bytes) -> bytes:
        do = strikes(function, payload).get("do", "")
        before(do)
        answer = entry(payload)
        remember(function, payload, answer)
        return after(do, answer)

    return call


def going_wrong_together(
    function: str, several: Callable[[Sequence[bytes]], list[Answer]]
) -> Callable[[Sequence[bytes]], list[Answer]]:
    """The same of calls that came as one frame: what goes wrong with one goes wrong with it."""

    def calls(payloads: Sequence[bytes]) -> list[Answer]:
        told = [strikes(function, payload).get("do", "") for payload in payloads]
        for do in told:
            before(do)
        return [after(do, answer) for do, answer in zip(told, several(payloads), strict=True)]

    return calls


def after(do: str, answer: T) -> T | bytes:
    """The answer, or one that fits no frame."""
    return bytes(MAX_FRAME + 1) if do == "huge" else answer


def before(do: str) -> None:
    """What happens before the call is computed, or is noted for the answer of its frame."""
    FaultyWriter.do = do or FaultyWriter.do
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif do == "print":
        noise()
        # A program of a library's own writes into the stream, where it can.
        os.system("echo noise; (echo noise >&4) 2>&1")
    elif do == "memory_error":
        raise MemoryError
    elif do == "out_of_memory":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def noise() -> None:
    """To standard output, as Python and as a C library write there."""
    print("\0\0\0\5noise", flush=True)
    os.write(1, b"\0\0\0\5noise\n")


def main() -> None:
    """Wrap every entry point, then be the worker."""
    kind = sys.argv[2]
    if fault().get("do") == "print":
        noise()  # as a library does while it is imported
    worker.ENTRIES[kind] = {
        (module, name): going_wrong(name, entry)
        for (module, name), entry in worker.ENTRIES[kind].items()
    }
    worker.TOGETHER[kind] = {
        (module, name): going_wrong_together(name, several)
        for (module, name), several in worker.TOGETHER[kind].items()
    }
    vars(worker)["FrameWriter"] = FaultyWriter
    sys.argv[1:] = [kind]
    worker.main()


if __name__ == "__main__":
    main()
