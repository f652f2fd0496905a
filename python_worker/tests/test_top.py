"""`top`: what it shows, and that the terminal is what it was before, under a real one (a pty)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from baguette.__main__ import main
from baguette.commands.top_view import KEPT_EVENTS, KEPT_JOBS, Seen, lines
from baguette.remote import feed
from baguette.remote.node import Node
from baguette.remote.place import Token, read_place
from baguette.text import cells
from peer import CLUSTER, SNAPSHOT, TOKEN, Peer
from terminal import Terminal

ON, OFF = b"\x1b[?1049h", b"\x1b[?1049l"  # the other screen of an xterm


def top(peer: Peer) -> Terminal:
    """The command under a terminal of its own."""
    return Terminal(["top", "--node", peer.url], BAGUETTE_TOKEN=TOKEN)


def status_of(terminal: Terminal) -> int:
    """The exit status, once the first screen is back."""
    terminal.until(OFF)
    return terminal.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as started:
        started.submitted({"prompt": "a \x1b[31mcat"})
        yield started


def test_a_terminal_shows_it_sorts_resizes_and_is_given_back(peer: Peer) -> None:
    terminal = top(peer)
    terminal.until(ON)
    terminal.until(b"DEGRADED")
    terminal.until(b"E1 NOBODY")
    terminal.until(b"job-0")
    terminal.until(b"now by node")
    terminal.key(b"s")
    terminal.until(b"trip")
    terminal.resize(12, 50)
    terminal.until(b"DEGRADED")
    terminal.key(b"q")
    assert status_of(terminal) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_gives_the_terminal_back(peer: Peer, number: int, status: int) -> None:
    terminal = top(peer)
    terminal.until(b"now by node")
    terminal.process.send_signal(number)
    assert status_of(terminal) == status


def test_a_node_that_is_lost_is_said_to_be_and_found_again(peer: Peer) -> None:
    terminal = top(peer)
    terminal.until(b"now by node")
    peer.go_on.set()  # the stream ends
    terminal.until(b"broke off its events")
    peer.go_on.clear()
    terminal.key(b"s")
    terminal.until(b"trip")
    terminal.key(b"q")
    assert status_of(terminal) == 0


def test_piped_it_is_printed_once(peer: Peer, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGUETTE_TOKEN", TOKEN)
    assert main(["top", "--node", peer.url]) == 0
    out = capfd.readouterr().out
    assert "DEGRADED: 127.0.0.3 is silent" in out
    assert "queued     ░░░░░░░░░░░░      0/4       - s tests        job-0" in out
    assert "127.0.0.3        E1  [2Jlost" in out
    assert "\x1b" not in out
    monkeypatch.setenv("BAGUETTE_TOKEN", "wrong.token")
    assert main(["top", "--node", peer.url]) == 1
    assert "does not take the token of BAGUETTE_TOKEN" in capfd.readouterr().err


def test_a_node_without_the_stream_is_asked_again_and_again(
    peer: Peer, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAGUETTE_TOKEN", TOKEN)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.01)
    peer.old = True
    assert main(["top", "--node", peer.url]) == 0
    out = capfd.readouterr().out
    assert "DEGRADED: 127.0.0.3 is silent" in out
    assert "127.0.0.2        it began" in out
    assert "E1(loading) E2" in out


def test_when_its_node_is_lost_another_one_tells(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "AGAIN_SECONDS", 0.01)
    told = feed.Feed(Node(read_place("node", peer.url), Token(TOKEN, "the test")), lambda: None)
    with Peer() as other:
        peer.others = ("gopher://x", "http://h/path", other.url)
        told.start()
        assert peer.streaming.wait(20)
        peer.go_on.set()
        peer.server.shutdown()
        peer.server.server_close()
        assert other.streaming.wait(20)
        told.close()
    names = [told.told.get() for _ in range(told.told.qsize())]
    assert ("node", other.url) in names
    assert any(name == "trouble" and "broke off" in why for name, why in names)


def test_both_shapes_of_a_cluster_show_the_same_nodes() -> None:
    shown = []
    for name, value in (("snapshot", SNAPSHOT), ("cluster", {**CLUSTER, "events": []})):
        seen = Seen("http://n:1")
        seen.take(name, value)
        shown.append([text for text, _ in lines(seen, (150, 60))])
    both = [line for line in shown[0] if line in shown[1]]
    assert len(both) == len(shown[0]) - 1  # but for the milliseconds of calls


def test_an_event_that_is_told_again_is_shown_once() -> None:
    seen = Seen("http://n:1")
    events = [{"at": 5.0 + i, "node": "127.0.0.2", "text": f"it began {i}"} for i in range(300)]
    other = {**events[0], "node": "127.0.0.3"}
    for told in (events, [other, *events], events):  # as after every new connection
        seen.take("log", {"events": told})
    shown = [text[9:] for text, _ in lines(seen, (100, 400)) if "it began" in text]
    assert shown == [f"{e['node']:<16} {e['text']}" for e in [*events, other]]
    for i in range(2 * KEPT_EVENTS):
        seen.take("log", {"events": [{"at": i, "text": "more"}]})
    assert len(seen.events) == KEPT_EVENTS


def full() -> Seen:
    seen = Seen("http://n:1")
    seen.take("snapshot", SNAPSHOT)
    for i in range(KEPT_JOBS + 40):
        status = "running" if i < 2 else "completed"
        request = {"prompt": "猫" * 70}
        job = {"id": f"j{i}", "status": status, "step": i, "steps": 9, "request": request}
        seen.take("job", job)
    seen.take("log", {"events": [{"at": i, "text": f"event {i}"} for i in range(300)]})
    return seen


@pytest.mark.parametrize("size", [(100, 30), (20, 5), (375, 200), (1, 1), (80, 0)])
def test_it_fits_whatever_there_is(size: tuple[int, int]) -> None:
    shown = lines(full(), size)
    assert len(shown) <= size[1]
    assert all(cells(text) <= size[0] for text, _ in shown)


def test_running_pictures_come_first_and_are_not_forgotten() -> None:
    seen = full()
    assert len(seen.jobs) == KEPT_JOBS
    texts = [text for text, _ in lines(seen, (150, 60))]
    at = texts.index("PICTURES") + 1
    assert [line.split()[0] for line in texts[at : at + 3]] == ["running", "running", "completed"]
    assert texts[-1].endswith("event 299")


def test_nodes_are_sorted_by_what_is_known_of_them() -> None:
    cards = [
        {"node": "127.0.0.10", "utilisation": 0.9, "calls": [{"p50_ms": 1}]},
        {"node": "127.0.0.9", "utilisation": None, "calls": [{"p50_ms": 7}]},
        {"node": "127.0.0.2", "utilisation": 0.1, "calls": []},
    ]
    links = [{"from": "127.0.0.2", "to": [{"node": "127.0.0.10", "rtt_ms": 3}]}]
    seen = Seen("http://n:1")
    seen.take("snapshot", {"node": "127.0.0.2", "nodes": cards, "links": links})

    def order(sort: str) -> list[str]:
        texts = [text.split()[0] for text, _ in lines(seen, (150, 60), sort) if "127.0" in text]
        return [name.rpartition(".")[2] for name in texts]

    assert order("node") == ["2", "9", "10"]
    assert order("trip")[0] == "10"
    assert order("use") == ["10", "2", "9"]
    assert order("ms") == ["9", "10", "2"]

    # Told by themselves afterwards: links, figures; a snapshot later on brings no links.
    seen.take("figures", {"nodes": [{"node": "127.0.0.2", "utilisation": 1.0}]})
    assert order("use") == ["2", "10", "9"]
    links = [{"from": "127.0.0.2", "to": [{"node": "127.0.0.9", "rtt_ms": 1}]}]
    seen.take("links", {"links": links})
    assert order("trip")[0] == "9"
    seen.take("snapshot", {"node": "127.0.0.2", "nodes": cards})
    assert order("trip")[0] == "9"
    assert order("use") == ["10", "2", "9"]


@pytest.mark.parametrize(
    "value",
    [None, [], 3, {"nodes": 3}, {"nodes": [{"calls": 3}, 4], "experts": [{}], "health": []}],
)
def test_values_of_another_kind_are_unknown(value: Any) -> None:
    seen = Seen("http://n:1")
    for name in ("snapshot", "figures", "links", "job", "jobs", "log", "point"):
        seen.take(name, value)
    assert lines(seen, (100, 30))
