"""Nodes that answer HTTP, for tests: simulated devices, tokens, and requests as bytes.

Requests are written by hand where a client library would not let itself be made to misbehave.
"""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import tokens
from launcher.nodes import Launch, address
from launcher.simulated import Device, Fleet
from live import free_web_port, running

DEVICE = Device(batch_us=3000, row_us=1000, load_ms=20)
SECONDS = 10.0


@dataclass
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A cluster of simulated nodes that answer HTTP, and the token of one client."""

    def __init__(self, fleet: Fleet, run: Path, port: int) -> None:
        self.fleet = fleet
        self.port = port
        self.key = tokens.read_key(run / "http.key")

    def host(self, index: int = 0) -> str:
        return f"{address(index)}:{self.port}"

    def url(self, index: int = 0) -> str:
        return f"http://{self.host(index)}"

    def bearer(self, name: str = "test") -> str:
        return f"Bearer {tokens.token(name, self.key)}"

    def connect(self, index: int = 0) -> socket.socket:
        return socket.create_connection((address(index), self.port), timeout=SECONDS)

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str | None] | None = None,
        body: bytes = b"",
        index: int = 0,
    ) -> Reply:
        """One request with a token on a connection of its own; a header of None is left out."""
        usual: dict[str, str | None] = {
            "Host": self.host(index),
            "Authorization": self.bearer(),
            "Content-Length": str(len(body)) if body else None,
            "Connection": "close",
        }
        lines = [f"{n}: {v}" for n, v in {**usual, **(headers or {})}.items() if v is not None]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
        with self.connect(index) as sock:
            sock.sendall(head.encode() + body)
            return read_reply(sock)


def read_reply(sock: socket.socket) -> Reply:
    """Everything until the server closes, as one answer."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return parse(data)


def parse(data: bytes) -> Reply:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(headers) == len(lines), "a header was sent twice"
    return Reply(int(first.split(" ")[1]), headers, body)


@contextlib.contextmanager
def serving(run: Path, count: int = 2, device: Device = DEVICE, **web: Any) -> Iterator[Server]:
    """A cluster with these settings of baguette_web over the usual ones."""
    engine = device.settings(count)
    launch = Launch(count, None, web_port=free_web_port(count), engine=engine, web=web)
    with _serving(run, launch) as server:
        yield server


@contextlib.contextmanager
def serving_model(run: Path, model_dir: Path, count: int = 2, **web: Any) -> Iterator[Server]:
    """The same with Python and a model."""
    with _serving(run, Launch(count, model_dir, web_port=free_web_port(count), web=web)) as server:
        yield server


@contextlib.contextmanager
def _serving(run: Path, launch: Launch) -> Iterator[Server]:
    port = launch.web_port
    assert port is not None
    with running(run, launch, uuid.uuid4().hex) as fleet:
        yield Server(fleet, run, port)
