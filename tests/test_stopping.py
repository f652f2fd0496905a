"""Nodes that are being stopped, or do not answer, over real sockets: who is told what meanwhile.

The devices are simulated. A stop is held up where a job's checkpoint is written, by a pipe that
nobody reads in that file's place.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from http_server import Reply, Server, read_reply, serving
from launcher.nodes import address
from launcher.processes import wait_gone

STOP_SECONDS = 30.0
# By itself no checkpoint is written: the first is that of the stop.
NEVER_MS = 10**9
DRAWN: dict[str, Any] = {"prompt": "a", "steps": 250, "n": 4}
JSON: dict[str, str | None] = {"Content-Type": "application/json"}
PICTURE = "/v1/images/generations"


@dataclass
class Event:
    """One server-sent event."""

    number: int
    name: str
    data: Any


class Stream:
    """Server-sent events of one answer, as they come."""

    def __init__(self, server: Server, path: str, last: int | None = None) -> None:
        self.sock = server.connect()
        again = f"Last-Event-ID: {last}\r\n" if last is not None else ""
        head = f"GET {path} HTTP/1.0\r\nHost: {server.host()}\r\n{again}"
        self.sock.sendall(f"{head}Authorization: {server.bearer()}\r\n\r\n".encode())
        self.file = self.sock.makefile("rb")
        assert self.file.readline().split()[1] == b"200"
        while self.file.readline().strip():
            pass

    def __iter__(self) -> Iterator[Event]:
        """Every event until the node closes."""
        fields: dict[str, str] = {}
        for line in self.file:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                fields = {}

    def until(self, name: str) -> Event:
        return next(event for event in self if event.name == name)


def post(server: Server, path: str, **headers: str) -> Reply:
    return server.ask(path, "POST", headers={**JSON, **headers}, body=json.dumps(DRAWN).encode())


def begun(server: Server, path: str, key: str) -> socket.socket:
    """A request that is not waited for."""
    body = json.dumps(DRAWN).encode()
    sock = server.connect()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {server.host()}\r\nAuthorization: {server.bearer()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Idempotency-Key: {key}\r\nConnection: close\r\n\r\n"
    )
    sock.sendall(head.encode() + body)
    return sock


@contextlib.contextmanager
def held_up(run: Path, job: str) -> Iterator[None]:
    """The job's checkpoint cannot be written meanwhile."""
    (directory,) = {path.parent for path in run.rglob(f"{job}.job")}
    pipe, away = directory / f"{job}.step.new", run / "away"
    os.mkfifo(pipe)
    try:
        yield
    finally:
        # Away before it is opened: from then on the node does with that name what it likes.
        pipe.rename(away)
        os.close(os.open(away, os.O_RDWR))


def stopped(server: Server) -> None:
    """The first node ends with exit status 0."""
    (node,) = server.fleet.cluster.nodes
    ended = os.waitid(os.P_PID, node.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)


def test_a_node_that_stops_says_so_and_goes_on_after_its_start(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serving(run, 1, checkpoint_ms=NEVER_MS) as server:
        held = post(server, "/v1/jobs").json()["id"]
        begun_at = Stream(server, f"/v1/jobs/{held}/events").until("step")
        waiting = begun(server, PICTURE, "mine")
        job = newest(server, but=held)
        events = Stream(server, f"/v1/jobs/{job}/events")
        seen = [events.until("step")]
        start = time.monotonic()
        with held_up(run, held):
            server.fleet.cluster.nodes[0].signal(signal.SIGTERM)
            while (ready := server.ask("/readyz")).status == 200:
                pass
            # Until the pipe is read this is no moment that somebody has to meet.
            for reply in (ready, server.ask("/readyz", headers={"Authorization": None})):
                assert reply.status == 503
                assert [reason["name"] for reason in reply.json()["reasons"]] == ["stopping"]
                assert "ask another" in reply.json()["reasons"][0]["detail"]
            assert server.ask("/healthz").status == 200
            for refused in (post(server, "/v1/jobs"), read_reply(waiting)):
                assert (refused.status, refused.json()["type"]) == (503, "urn:baguette:leaving")
                assert int(refused.headers["retry-after"]) >= 1
            # No end is told: it has none.
            seen += events
            assert not {"completed", "failed", "cancelled"} & {event.name for event in seen}
        stopped(server)
        assert time.monotonic() - start < STOP_SECONDS
        assert kinds(run, job) == [".job", ".step"]
        assert kinds(run, held) == [".job"]

        server.fleet.start_node(0)
        answering(server)
        server.fleet.simulate(0, speed=20.0)
        goes_on(server, job, seen[-1].number)
        goes_on(server, held, begun_at.number)
        # Who waited gets his picture by his key.
        assert post(server, PICTURE, **{"Idempotency-Key": "mine"}).json()["job"] == job


def newest(server: Server, but: str) -> str:
    """The other job, once it is there."""
    while True:
        for one in server.ask("/v1/jobs").json()["data"]:
            if one["id"] != but:
                return str(one["id"])


def kinds(run: Path, job: str) -> list[str]:
    """What lies there of a job."""
    return sorted(path.suffix for path in run.rglob(f"{job}.*"))


def answering(server: Server) -> None:
    """Back when the node that was started answers."""
    while True:
        with contextlib.suppress(OSError, IndexError, ValueError):
            server.ask("/healthz")
            return


def goes_on(server: Server, job: str, last: int) -> None:
    """Its events are numbered on, and come to an end."""
    events = list(Stream(server, f"/v1/jobs/{job}/events", last))
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > last
    assert [event.name for event in events if event.name == "completed"] == ["completed"]
    assert events[-1].name == "completed"
    assert events[-1].data["resumed"] == 1
    assert len(events[-1].data["routing"]) == DRAWN["steps"]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "run", 2) as server:
        yield server


def test_the_tree_of_a_node_that_does_not_answer_is_504(two: Server) -> None:
    node, path = two.fleet.cluster.nodes[1], f"/v1/tree?node={address(1)}"
    assert two.ask(path).json()["node"] == address(1)
    node.signal(signal.SIGSTOP)
    try:
        reply = two.ask(path)
    finally:
        node.signal(signal.SIGCONT)
    assert reply.status == 504
    assert "ask it directly" in reply.json()["detail"]
    node.signal(signal.SIGKILL)
    assert wait_gone([node], 10) == []
    assert two.ask(path).status == 504
