"""{packet,4} frames over two file descriptors: a 4-byte big-endian length, then the bytes.

The twin of the port driver on the Erlang side. The length is checked before anything is allocated,
and a large frame is read into one buffer of its size. Called by the runner.
"""

from __future__ import annotations

import os
import select
import struct
from collections.abc import Sequence

from baguette.errors import BadInput

MAX_FRAME = 256 << 20
# What is read at once, of one frame or several: as much as a pipe holds.
CHUNK = 64 << 10


class FrameError(ValueError):
    """The stream is broken beyond repair; the process must end."""


class EndOfStream(Exception):
    """The other side has closed the stream: nothing more comes, and no answer is waited for."""


class FrameReader:
    """Whole frames from `fd`. Used by one thread."""

    def __init__(self, fd: int, max_frame: int = MAX_FRAME) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._max_frame = max_frame
        # Read, and not of the frame that was read last.
        self._ahead = memoryview(b"")

    def is_there(self) -> bool:
        """Whether a frame has begun to come, or the end: `read` waits for its rest at most."""
        return len(self._ahead) > 0 or bool(self._poll.poll(0))

    def read(self) -> memoryview:
        """The next frame; EndOfStream when there is none."""
        header = self._fill(4)
        if header is None:
            raise EndOfStream
        (size,) = struct.unpack(">I", header)
        if size > self._max_frame:
            raise FrameError(f"a frame of {size} bytes is larger than {self._max_frame}")
        body = self._fill(size)
        if body is None:
            raise FrameError("the stream ends inside a frame")
        return body

    def _fill(self, size: int) -> memoryview | None:
        """So many bytes; None where the stream ends before the first of them."""
        if size > CHUNK:
            return self._fill_large(size)
        while len(self._ahead) < size:
            chunk = os.read(self._fd, CHUNK)
            if not chunk:
                return _end(len(self._ahead))
            self._ahead = memoryview(bytes(self._ahead) + chunk if self._ahead else chunk)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def _fill_large(self, size: int) -> memoryview | None:
        view = memoryview(bytearray(size))
        got = min(size, len(self._ahead))
        view[:got], self._ahead = self._ahead[:got], self._ahead[got:]
        while got < size:
            count = os.readv(self._fd, [view[got:]])
            if not count:
                return _end(got)
            got += count
        return view


class FrameWriter:
    """Whole frames to `fd`. Used by one thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, *frames: bytes) -> None:
        """Write frames as `framed` makes them, one after the other; EndOfStream if nobody reads."""
        views = [memoryview(frame) for frame in frames]
        while views:
            try:
                written = os.writev(self._fd, views)
            except BrokenPipeError:
                raise EndOfStream from None
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if views:
                views[0] = views[0][written:]


def framed(pieces: Sequence[bytes]) -> bytes:
    """The pieces as one frame with its length; BadInput when it is too large."""
    size = sum(len(piece) for piece in pieces)
    if size > MAX_FRAME:
        raise BadInput(f"an answer of {size} bytes, at most {MAX_FRAME}: ask for less at once")
    return b"".join((struct.pack(">I", size), *pieces))


def _end(got: int) -> memoryview | None:
    """None, after so many bytes of what was to be read: there must be none."""
    if got:
        raise FrameError("the stream ends inside a frame")
    return None
