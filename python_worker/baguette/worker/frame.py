"""{packet,4} frames over two file descriptors: a 4-byte big-endian length, then the bytes.

The twin of the port driver on the Erlang side. The length is checked before anything is allocated,
and a frame is read into one buffer of its size. Called by the runner; at end-of-file the reader
returns None, which ends the process.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence

from baguette.errors import BadInput

MAX_FRAME = 256 << 20


class FrameError(ValueError):
    """The stream is broken beyond repair; the process must end."""


class FrameReader:
    """Whole frames from `fd`. Used by one thread."""

    def __init__(self, fd: int, max_frame: int = MAX_FRAME) -> None:
        self._file = open(fd, "rb", buffering=0, closefd=False)  # noqa: SIM115
        self._max_frame = max_frame

    def read(self) -> memoryview | None:
        """The next frame, or None at end-of-file."""
        header = self._fill(4)
        if header is None:
            return None
        (size,) = struct.unpack(">I", header)
        if size > self._max_frame:
            raise FrameError(f"a frame of {size} bytes is larger than {self._max_frame}")
        body = self._fill(size)
        if body is None and size:
            raise FrameError("the stream ends inside a frame")
        return body

    def _fill(self, size: int) -> memoryview | None:
        view = memoryview(bytearray(size))
        got = 0
        while got < size:
            count = self._file.readinto(view[got:])
            if not count:
                if got:
                    raise FrameError("the stream ends inside a frame")
                return None
            got += count
        return view


class FrameWriter:
    """Whole frames to `fd`, from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, *frames: bytes) -> None:
        """Write frames as `framed` makes them, one after the other."""
        with self._lock:
            view = memoryview(b"".join(frames))
            while view:
                view = view[os.write(self._fd, view) :]


def framed(pieces: Sequence[bytes]) -> bytes:
    """The pieces as one frame with its length; BadInput when it is too large."""
    size = sum(len(piece) for piece in pieces)
    if size > MAX_FRAME:
        raise BadInput(f"an answer of {size} bytes, at most {MAX_FRAME}: ask for less at once")
    return b"".join((struct.pack(">I", size), *pieces))
