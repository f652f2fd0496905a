"""Server-sent events from bytes: the standard's own cases, cut off streams, and what is refused."""

from __future__ import annotations

import io

import pytest

from baguette.remote import sse
from baguette.remote.sse import BadStream, Event, events


def read(text: bytes) -> list[Event]:
    return list(events(io.BytesIO(text)))


def test_an_event_has_a_name_a_value_and_an_id() -> None:
    text = b': hello\n\nid: 7\nevent: step\ndata: {"a":\ndata: 1}\n\ndata:[2]\r\n\r\n'
    assert read(text) == [Event("step", {"a": 1}, "7"), Event("message", [2], "7")]


def test_what_was_cut_off_is_not_told() -> None:
    assert read(b"data: 1\n\ndata: 2\n") == [Event("message", 1, None)]
    assert read(b"data: 1\n\ndata: 2") == [Event("message", 1, None)]


def test_an_event_without_data_and_unknown_fields_say_nothing() -> None:
    assert read(b"event: step\n\nretry: 5\nwhatever\nid: a\0b\ndata: 1\n\n") == [
        Event("message", 1, None)
    ]


@pytest.mark.parametrize(
    "text", [b"data: {\n\n", b"data: \xff\n\n", b"data: " + b"[" * 9999 + b"\n\n"]
)
def test_data_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadStream, match="no JSON"):
        read(text)


@pytest.mark.parametrize("line", [b"data: 1\n", b"id: 1\n"])
def test_an_event_without_an_end_is_refused(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    with pytest.raises(BadStream, match="more than 1000 bytes"):
        read(line * 1000)
    with pytest.raises(BadStream, match="more than 1000 bytes"):
        read(b"data: " + b"x" * 1000)
