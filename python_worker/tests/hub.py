"""A Hugging Face Hub on loopback, as much of one as a download asks: for tests of `weights`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPO = "somebody/paris"
SHA = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 10


class Hub(ThreadingHTTPServer):
    """Serves a directory as one repository; what it is to do wrong stands in its fields."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        # status and the Hub's own error code for every question, where not None
        self.refuses: tuple[int, str] | None = None
        # who may fetch, where not everybody
        self.token: str | None = None
        # file -> bytes after which the connection is cut, once
        self.cuts: dict[str, int] = {}
        # file -> bytes after which nothing more comes until `go_on`, once
        self.halts: dict[str, int] = {}
        self.halted, self.go_on = threading.Event(), threading.Event()
        # file -> other bytes than the Hub's own listing promises
        self.forged: dict[str, bytes] = {}
        # what every small file is said to be called by contents, where not by its hash
        self.blob: str | None = None
        self.asked: list[tuple[str, str | None]] = []

    def info(self) -> dict[str, Any]:
        siblings = []
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            one = {"rfilename": path.relative_to(self.folder).as_posix(), "size": len(data)}
            one["blobId"] = self.blob or hashlib.sha1(data).hexdigest()
            if len(data) >= LARGE:
                sha256 = hashlib.sha256(data).hexdigest()
                one["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
            siblings.append(one)
        return {"id": REPO, "sha": SHA, "private": False, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        allowed = hub.token in (None, self.headers.get("Authorization", "").removeprefix("Bearer "))
        if hub.refuses or not allowed:
            self._refuse(*(hub.refuses or (403, "GatedRepo")))
        elif path.startswith("/api/models/" + REPO):
            self._answer(200, json.dumps(hub.info()).encode())
        elif path.startswith(f"/{REPO}/resolve/{SHA}/"):
            self._file(path.split(SHA + "/")[1])
        else:
            self._refuse(401, "RepoNotFound")

    def _file(self, name: str) -> None:
        hub = self.server
        data = hub.forged.get(name) or (hub.folder / name).read_bytes()
        asked = self.headers.get("Range")
        hub.asked.append((name, asked))
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if asked else {}
        self._answer(206 if asked else 200, data[begin:], name, headers)

    def _answer(
        self, status: int, body: bytes, name: str = "", headers: dict[str, str] | None = None
    ) -> None:
        hub = self.server
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if name in hub.cuts:
            self.wfile.write(body[: hub.cuts.pop(name)])
            self.close_connection = True
        elif name in hub.halts:
            self.wfile.write(body[: hub.halts.pop(name)])
            hub.halted.set()
            hub.go_on.wait()
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Standard error is the test's."""


@contextmanager
def hub_of(folder: Path) -> Iterator[Hub]:
    """A Hub that runs until the block ends."""
    with Hub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.go_on.set()
            hub.shutdown()
            thread.join()
