"""The part of Erlang's external term format that ErlPort's messages use, bounded; no pickle.

Tuples, lists, atoms, integers and binaries only; anything else is a `TermError`. Binaries are read
as one slice of the frame, so a large one costs one copy. Format: ERTS user's guide, "External Term
Format". Called by the runner.
"""

from __future__ import annotations

import struct
from typing import Any

MAX_DEPTH = 8
MAX_ITEMS = 1024

_VERSION = 131
_SMALL_INT, _INT, _SMALL_BIG = 97, 98, 110
_ATOM, _SMALL_ATOM, _ATOM_UTF8, _SMALL_ATOM_UTF8 = 100, 115, 118, 119
_SMALL_TUPLE, _NIL, _STRING, _LIST, _BINARY = 104, 106, 107, 108, 109


class TermError(ValueError):
    """The bytes are not a term this port speaks."""


class Atom(str):
    """An Erlang atom; a plain str is never encoded, so text cannot become an atom by accident."""

    __slots__ = ()


def decode(frame: memoryview) -> Any:
    """One term from one frame; TermError when it is malformed, too deep, or has bytes left over."""
    if len(frame) < 2 or frame[0] != _VERSION:
        raise TermError("a frame must start with the external term format's version byte")
    try:
        value, end = _decode(frame, 1, 0)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise TermError("the frame ends inside a term") from None
    if end != len(frame):
        raise TermError(f"{len(frame) - end} bytes are left over after the term")
    return value


def _decode(frame: memoryview, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise TermError(f"a term nests deeper than {MAX_DEPTH}")
    tag, at = frame[at], at + 1
    if tag in (_SMALL_TUPLE, _LIST, _NIL, _STRING):
        return _decode_sequence(frame, tag, at, depth)
    if tag in (_ATOM, _SMALL_ATOM, _ATOM_UTF8, _SMALL_ATOM_UTF8, _BINARY):
        return _decode_bytes(frame, tag, at)
    if tag == _SMALL_INT:
        return frame[at], at + 1
    if tag == _INT:
        return struct.unpack_from(">i", frame, at)[0], at + 4
    if tag == _SMALL_BIG:
        size, negative = frame[at], frame[at + 1]
        value = int.from_bytes(_take(frame, at + 2, size), "little")
        return (-value if negative else value), at + 2 + size
    raise TermError(f"term tag {tag} is not spoken here")


def _decode_sequence(frame: memoryview, tag: int, at: int, depth: int) -> tuple[Any, int]:
    if tag == _NIL:
        return [], at
    if tag == _STRING:
        (size,) = struct.unpack_from(">H", frame, at)
        return list(_take(frame, at + 2, size)), at + 2 + size
    size = frame[at] if tag == _SMALL_TUPLE else struct.unpack_from(">I", frame, at)[0]
    at += 1 if tag == _SMALL_TUPLE else 4
    if size > MAX_ITEMS:
        raise TermError(f"a sequence of {size} items is longer than {MAX_ITEMS}")
    items = []
    for _ in range(size):
        item, at = _decode(frame, at, depth + 1)
        items.append(item)
    if tag == _SMALL_TUPLE:
        return tuple(items), at
    tail, at = _decode(frame, at, depth + 1)
    if tail != []:
        raise TermError("improper lists are not spoken here")
    return items, at


def _decode_bytes(frame: memoryview, tag: int, at: int) -> tuple[Any, int]:
    if tag == _BINARY:
        (size,) = struct.unpack_from(">I", frame, at)
        return bytes(_take(frame, at + 4, size)), at + 4 + size
    if tag in (_ATOM, _ATOM_UTF8):
        (size,) = struct.unpack_from(">H", frame, at)
        at += 2
    else:
        size, at = frame[at], at + 1
    encoding = "utf-8" if tag in (_ATOM_UTF8, _SMALL_ATOM_UTF8) else "latin-1"
    return Atom(str(_take(frame, at, size), encoding)), at + size


def _take(frame: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(frame):
        raise TermError("the frame ends inside a term")
    return frame[at : at + size]


def encode(value: Any) -> list[bytes]:
    """A term as pieces to be written one after the other, so that binaries are not copied."""
    pieces: list[bytes] = [bytes((_VERSION,))]
    _encode(value, pieces)
    return pieces


def _encode(value: Any, pieces: list[bytes]) -> None:
    if isinstance(value, Atom):
        name = value.encode()
        pieces.append(bytes((_SMALL_ATOM_UTF8, len(name))) + name)
    elif isinstance(value, bytes):
        pieces += [struct.pack(">BI", _BINARY, len(value)), value]
    elif isinstance(value, int):
        pieces.append(_encode_int(value))
    elif isinstance(value, (tuple, list)):
        _encode_sequence(value, pieces)
    else:
        raise TermError(f"a {type(value).__name__} has no term on this port")


def _encode_sequence(value: tuple[Any, ...] | list[Any], pieces: list[bytes]) -> None:
    if isinstance(value, tuple):
        pieces.append(bytes((_SMALL_TUPLE, len(value))))
    elif value:
        pieces.append(struct.pack(">BI", _LIST, len(value)))
    for item in value:
        _encode(item, pieces)
    if isinstance(value, list):
        pieces.append(bytes((_NIL,)))


def _encode_int(value: int) -> bytes:
    if 0 <= value < 256:
        return bytes((_SMALL_INT, value))
    if -(1 << 31) <= value < 1 << 31:
        return struct.pack(">Bi", _INT, value)
    size = (abs(value).bit_length() + 7) // 8
    return bytes((_SMALL_BIG, size, value < 0)) + abs(value).to_bytes(size, "little")
