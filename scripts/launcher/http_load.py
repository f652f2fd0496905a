"""Load on a node's HTTP: wrk, many watchers, and clients that are slow or vanish.

Called by scripts/bench_http.py. wrk reads its headers from a script of mode 0600: on its command
line everybody could read the token. What dies with it: every connection.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from launcher.erlang import write_private
from launcher.processes import Process, Refused

CONNECTIONS = 64
WRK_GRACE = 30.0
LOWEST_PRIORITY = 19
CONNECT_SECONDS, JOIN_SECONDS = 10.0, 10.0
DONE = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
        latency:percentile(50), latency:percentile(99), e.status,
        e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Target:
    """A node's HTTP, and the token to ask it with."""

    host: str
    port: int
    token: str
    process: Process

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def head(self, path: str, more: str = "") -> bytes:
        """A GET as bytes; `more` are further header lines."""
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self.token}",
        )
        return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode()

    def rss_mib(self) -> float:
        """What the node holds of this machine's memory."""
        rss: int = psutil.Process(self.process.pid).memory_info().rss
        return rss / (1 << 20)

    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        count: int = psutil.Process(self.process.pid).num_fds()
        return count


def check_wrk() -> str:
    """Where wrk is; Refused says how it comes here."""
    found = shutil.which("wrk")
    if found is None:
        raise Refused("wrk is not installed: `sudo apt-get install wrk`, then run this again")
    return found


def wrk(target: Target, path: str, seconds: float, run: Path, body: str | None = None) -> Any:
    """Requests a second and latencies of one address at CONNECTIONS connections."""
    script = run / "wrk.lua"
    headers = {"Authorization": f"Bearer {target.token}"}
    lines = []
    if body is not None:
        headers["Content-Type"] = "application/json"
        lines = ['wrk.method = "POST"', f"wrk.body = [[{body}]]"]
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    write_private(script, "\n".join(lines) + DONE)
    command = [
        *(check_wrk(), "-t2", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s"),
        *("-s", str(script), target.url + path),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + WRK_GRACE, check=False
    )
    result = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if result is None:
        raise Refused(f"wrk measured nothing at {path}: {(done.stderr or done.stdout)[-300:]}")
    requests, duration_us, p50, p99, refused, broken = map(int, result.split()[1:])
    return {
        "requests_per_second": round(requests / duration_us * 1e6, 1),
        "p50_ms": p50 / 1000,
        "p99_ms": p99 / 1000,
        "requests": requests,
        "refused": refused,
        "broken": broken,
    }


def raise_descriptor_limit() -> None:
    """A thousand connections take more than most shells allow by themselves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Watchers(threading.Thread):
    """Many readers of one event stream, in one thread: what arrives is counted and dropped.

    The thread has the lowest priority: readers are at home on machines of their own, and what they
    take of these cores is not the node's cost. Whoever reads too slowly is dropped (`alive`).
    """

    def __init__(self, target: Target, count: int) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._ended = threading.Event()
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            sock = socket.create_connection((target.host, target.port), CONNECT_SECONDS)
            sock.sendall(target.head("/v1/stream"))
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)

    @property
    def alive(self) -> int:
        """How many still read."""
        return len(self._selector.get_map() or ())

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.2):
                self._read(key.fileobj)

    def _read(self, sock: Any) -> None:
        try:
            data = sock.recv(1 << 18)
        except ConnectionError:
            data = b""
        self.bytes += len(data)
        if not data:
            self._selector.unregister(sock)
            sock.close()

    def close(self) -> None:
        """Every connection goes at once."""
        self._ended.set()
        self.join(JOIN_SECONDS)
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


@contextlib.contextmanager
def watchers(target: Target, count: int) -> Iterator[Watchers]:
    """So many readers of /v1/stream, gone afterwards."""
    reading = Watchers(target, count)
    reading.start()
    try:
        yield reading
    finally:
        reading.close()


@contextlib.contextmanager
def slow(target: Target, count: int) -> Iterator[None]:
    """Clients that stay: a third sends half a header, a third half a body, a third never reads."""
    half_head = target.head("/v1/jobs")[:-8]
    half_body = target.head("/v1/jobs", "Content-Length: 100\r\n").replace(b"GET", b"POST", 1)
    kinds = (half_head, half_body + b"{", target.head("/v1/stream"))
    with contextlib.ExitStack() as stack:
        for number in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stack.callback(sock.close)
            sock.settimeout(CONNECT_SECONDS)
            sock.connect((target.host, target.port))
            sock.sendall(kinds[number % len(kinds)])
        yield


def vanish(target: Target, count: int) -> None:
    """Clients that ask for a stream or a list and reset the connection before the answer."""
    for number in range(count):
        with socket.create_connection((target.host, target.port), CONNECT_SECONDS) as sock:
            linger = struct.pack("ii", 1, 0)  # close() sends a reset
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.sendall(target.head(("/v1/stream", "/v1/jobs?limit=100")[number % 2]))
