"""Bytes that no well-behaved client sends: each gets an answer, and none is logged as a crash."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from http_server import Server, read_reply, serving

PROMPT = {"prompt": "any words at all", "steps": 250}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("run")) as running:
        yield running


def sent(server: Server, data: bytes) -> tuple[int, str]:
    """Status and reason of the answer to these bytes."""
    with server.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    line = received.partition(b"\r\n")[0].decode("ascii")
    _, status, reason = line.split(" ", 2)
    return int(status), reason


def get(server: Server, path: bytes = b"/v1/models", *headers: bytes) -> bytes:
    host = b"Host: " + server.host().encode()
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", host, *headers, b"", b""])


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        (b"/v1/models", b"Authorization: \xff\xff\xff\xff\xff\xff x", 401),
        (b"/v1/models", b"Authorization: Bearer \xff", 401),
        (b"/healthz", b"Connection: \xff", 200),
        (b"/%ff", b"X: y", 400),
        (b"/\xff", b"X: y", 400),
        (b"/healthz?\xff=%ff", b"X: y", 400),
        (b"/healthz", b"X: a\rb", 400),
        (b"/healthz", b"Origin: null\r\nOrigin: null", 400),
    ],
)
def test_what_is_no_text_is_answered(
    server: Server, path: bytes, header: bytes, status: int
) -> None:
    assert sent(server, get(server, path, header))[0] == status
    assert crashes(server) == []


def test_headers_are_bounded_in_all(server: Server) -> None:
    many = [b"X: " + b"y" * 8000] * 6
    assert sent(server, get(server, b"/healthz", *many)) == (
        431, "Request Header Fields Too Large",
    )  # fmt: skip


def test_a_client_that_goes_away_is_no_crash(server: Server) -> None:
    body = json.dumps(PROMPT).encode()
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: {server.host()}\r\n"
        f"Authorization: {server.bearer()}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with server.connect() as sock:
        sock.sendall(head.encode() + body)
        job = drawn(server, "running")
    drawn(server, "cancelled", job)
    assert crashes(server) == []


def drawn(server: Server, status: str, job: str | None = None) -> str:
    """The newest job, or this one, once it is in this state."""
    while True:
        for one in server.ask("/v1/jobs").json()["data"]:
            if one["status"] == status and job in (None, one["id"]):
                return str(one["id"])


def test_streams_that_were_killed_are_not_counted(server: Server) -> None:
    with server.connect() as sock:
        head = f"GET /v1/stream HTTP/1.1\r\nHost: {server.host()}\r\n"
        sock.sendall(f"{head}Authorization: {server.bearer()}\r\n\r\n".encode())
        assert sock.recv(12) == b"HTTP/1.1 200"
        while open_streams(server) != 1:
            pass
    while open_streams(server) != 0:
        pass


def open_streams(server: Server) -> int:
    text = server.ask("/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("baguette_http_open_streams ")]
    return int(lines[0].split(" ")[1])


def crashes(server: Server) -> list[str]:
    log = server.fleet.cluster.log(0).read_text(errors="replace")
    return [line for line in log.splitlines() if "crashed" in line]


def test_a_request_with_none_of_it_still_works(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get(server, b"/healthz", b"Connection: close"))
        assert read_reply(sock).status == 200
