"""Server-sent events, as the HTML standard has them: lines in, events out. Pure.

Called by `remote.node`. A stream that ends in the middle of an event gives nothing of that event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_EVENT = 16 << 20  # the whole job of 64 pictures, or a preview


class BadStream(Exception):
    """What arrived is no event stream."""


@dataclass(frozen=True)
class Event:
    """`id` is what the stream goes on after; `value` the data, decoded."""

    name: str
    value: Any
    id: str | None


def events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Whole events; comments, which keep a stream alive, are passed over."""
    seen = None
    for fields in _blocks(lines):
        for name, text in fields:
            seen = text if name == "id" and "\0" not in text else seen
        data = [text for name, text in fields if name == "data"]
        if data:
            names = [text for name, text in fields if name == "event" and text]
            yield Event(names[-1] if names else "message", _decoded("\n".join(data)), seen)


def _blocks(lines: Iterable[bytes]) -> Iterator[list[tuple[str, str]]]:
    """The fields between one empty line and the next."""
    fields: list[tuple[str, str]] = []
    size = 0
    for line in lines:
        size += len(line)
        if size > MAX_EVENT:
            raise BadStream(f"an event of more than {MAX_EVENT} bytes")
        if not line.endswith(b"\n"):
            return  # cut off
        name, _, rest = line.rstrip(b"\r\n").partition(b":")
        if name or rest:
            text = rest.removeprefix(b" ").decode(errors="replace")
            fields.append((name.decode(errors="replace"), text))
            continue
        yield fields
        fields, size = [], 0


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadStream("an event whose data is no JSON") from None
