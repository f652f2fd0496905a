"""A node as its HTTP contract describes one: tokens, jobs, event streams, pictures.

Used by the tests of the client. It is a real server on a real socket that draws one colour; what
may go wrong between a node and its client goes wrong here when a test says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

TOKEN = "tests.c2VjcmV0"
STEPS = 4
ENDS = ("completed", "failed", "cancelled")


def png(colour: str, side: int = 12) -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, format="PNG")
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Says nothing of a client that went away: that is what some tests do."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class Peer:
    """What the node holds, and how it is to misbehave."""

    host: str = "127.0.0.1"
    steps_until: int = 10**6  # steps are drawn up to here, then it waits for `go_on`
    break_after: list[int] = field(default_factory=list)  # events a connection sends before it dies
    busy: int = 0  # submissions refused with 429
    retry_after: int = 1
    lose_answers: int = 0  # submissions taken whose answer never arrives
    forget_events: bool = False  # Last-Event-ID is unknown: resync
    fail: dict[str, Any] | None = None
    others: tuple[str, ...] = ()  # addresses of nodes that the stream's snapshot names
    old: bool = False  # has no stream of the whole cluster
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    streaming: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Peer:
        handler = type("Handler", (Handler,), {"peer": self})
        self.server = Server((self.host, 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.server.server_address[1]}"

    def submitted(self, request: dict[str, Any]) -> dict[str, Any]:
        """A new job, as the 202 has it."""
        number = len(self.jobs)
        full = {
            "negative_prompt": "", "model": "tiny", "n": 1, "steps": STEPS, "guidance_scale": 7.5,
            "top_k": 2, "seed": 999, "deterministic": False, "cache": 0.0,
            "on_missing": "wait", **request,
        }  # fmt: skip
        job = {
            "id": f"job-{number}", "object": "job", "status": "queued", "created": 1000.0 + number,
            "started": None, "finished": None, "client": "tests", "node": self.host,
            "request": full, "step": 0, "steps": full["steps"], "phase": None, "position": 0,
            "predicted_seconds": 2.0, "seconds": None, "waiting": None, "routing": [], "calls": [],
            "failovers": [], "hedges": [], "degraded": [], "images": [], "resumed": 0,
            "error": None,
        }  # fmt: skip
        return self.jobs.setdefault(job["id"], job)

    def events(self, job: dict[str, Any]) -> list[tuple[str, Any]]:
        """Everything there is to tell of it, in order."""
        told: list[tuple[str, Any]] = [("status", summary({**job, "status": "queued"}))]
        told.append(("waiting", {"expert": 1, "reason": "expert 1: it is \x1b[31mloading"}))
        for step in range(job["steps"]):
            entry = {"step": step, "experts": [[step % 3, 2]] * job["request"]["n"], "asked": {}}
            job["routing"] = [*job["routing"][:step], entry]
            told.append(("step", {**entry, "steps": job["steps"]}))
        picture = base64.b64encode(png("blue")).decode()
        told.append(("preview", {"image": 0, "step": 2, "b64_png": picture}))
        failover = {"step": 1, "expert": 2, "from": "127.0.0.3", "to": "127.0.0.4", "why": "died"}
        job["failovers"] = [failover]
        return [*told, ("failover", failover), ("warning", {"text": "only shapes"})]

    def ended(self, job: dict[str, Any]) -> tuple[str, Any]:
        """The last event."""
        if job["status"] not in ENDS:
            job |= {"status": "failed" if self.fail else "completed", "error": self.fail}
        if job["status"] == "completed":
            job |= {
                "seconds": 0.5, "finished": job["created"] + 1, "step": job["steps"],
                "images": [
                    {
                        "index": i, "seed": job["request"]["seed"] + i,
                        "url": f"/v1/jobs/{job['id']}/images/{i}.png",
                        "pixels_sha256": hashlib.sha256(b"%d" % i).hexdigest(),
                        "reused": 0,
                    }
                    for i in range(job["request"]["n"])
                ],
            }  # fmt: skip
        return job["status"], job


def summary(job: dict[str, Any]) -> dict[str, Any]:
    """A job as lists and streams have it."""
    left_out = ("routing", "calls", "hedges", "failovers")
    short = {name: value for name, value in job.items() if name not in left_out}
    return {**short, "failovers_count": len(job["failovers"])}


# What /v1/cluster answers, and what /v1/stream calls a snapshot.
CLUSTER = {
    "node": "127.0.0.2",
    "state": "degraded",
    "reasons": [{"name": "suspects", "detail": "127.0.0.3 is silent."}],
    "nodes": [
        {
            "node": "127.0.0.2", "self": True, "link": "up", "leaving": False, "rtt_ms": None,
            "report": {
                "components": [{"component": "m/0", "state": "ready"}],
                "facts": {
                    "device_now": {
                        "name": "a \x1b]0;CPU", "memory_mib": 100, "used_mib": 10,
                        "utilisation": 0.5,
                    },
                },
            },
        },
        {
            "node": "127.0.0.3", "self": False, "link": "suspect", "leaving": False, "rtt_ms": 0.4,
            "report": {
                "components": [
                    {"component": "m/1", "state": "loading"}, {"component": "m/2", "state": "ready"}
                ],
                "facts": {"hardware": {"gpu": None, "cpu": "b CPU"}},
            },
        },
    ],
    "experts": [
        {"expert": 0, "component": "m/0", "holders": ["127.0.0.2"]},
        {"expert": 1, "component": "m/1", "holders": []},
        {"expert": 2, "component": "m/2", "holders": ["127.0.0.3"]},
    ],
    "links": [],
    "events": [{"at": 5.0, "level": "info", "text": "it began"}],
}  # fmt: skip
SNAPSHOT = {
    "node": "127.0.0.2",
    "health": {"state": CLUSTER["state"], "reasons": CLUSTER["reasons"]},
    "nodes": [
        {
            "node": "127.0.0.2", "self": True, "link": "up", "leaving": False,
            "device": "a \x1b]0;CPU", "memory": {"used_mib": 10, "total_mib": 100},
            "utilisation": 0.5, "experts": [{"expert": 0, "state": "ready"}],
            "calls": [{"expert": 0, "p50_ms": 3.2, "p95_ms": 5.0}],
        },
        {
            "node": "127.0.0.3", "self": False, "link": "suspect", "leaving": False,
            "device": "b CPU", "memory": None, "utilisation": None,
            "experts": [{"expert": 1, "state": "loading"}, {"expert": 2, "state": "ready"}],
            "calls": [],
        },
    ],
    "experts": [
        {"expert": 0, "holders": ["127.0.0.2"]},
        {"expert": 1, "holders": []},
        {"expert": 2, "holders": ["127.0.0.3"]},
    ],
    "links": [{"from": "127.0.0.2", "to": [{"node": "127.0.0.3", "rtt_ms": 0.4}]}],
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One request; the node is the class's `peer`."""

    peer: Peer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests look at `seen`."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if not self._may(path):
            return
        parts = path.strip("/").split("/")
        if path == "/v1/cluster":
            self._json(200, CLUSTER)
        elif path == "/v1/stream" and not self.peer.old:
            self._stream()
        elif path == "/v1/jobs":
            listed = [summary(job) for job in reversed(self.peer.jobs.values())]
            limit = int(dict(p.split("=") for p in query.split("&"))["limit"])
            more = len(listed) > limit
            self._json(200, {"object": "list", "data": listed[:limit], "has_more": more})
        elif parts[:2] != ["v1", "jobs"] or parts[2] not in self.peer.jobs:
            self._problem(404, "there is no such job; GET /v1/jobs lists those there are")
        elif len(parts) == 3:
            self._json(200, self.peer.jobs[parts[2]])
        elif parts[3] == "events":
            self._events(self.peer.jobs[parts[2]])
        else:
            self._send(200, "image/png", png("red"))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        peer = self.peer
        if not self._may(self.path):
            return
        if peer.busy:
            peer.busy -= 1
            after = {"Retry-After": str(peer.retry_after)}
            self._problem(429, "the queue is full; ask again in a moment", after)
            return
        key = self.headers["Idempotency-Key"]
        if key not in peer.keys:
            peer.keys[key] = peer.submitted(json.loads(body))["id"]
        if peer.lose_answers:
            peer.lose_answers -= 1
            self.close_connection = True
            return
        self._json(202, peer.jobs[peer.keys[key]])

    def do_DELETE(self) -> None:
        job = self.peer.jobs[self.path.rpartition("/")[2]]
        if self._may(self.path):
            if job["status"] not in ENDS:
                job["status"] = "cancelled"
            self.peer.go_on.set()
            self._json(200, job)

    def _events(self, job: dict[str, Any]) -> None:
        peer = self.peer
        told = peer.events(job)
        last = self.headers.get("Last-Event-ID")
        first = 0 if last is None else int(last) + 1
        if last is not None and peer.forget_events:
            told, first = [("resync", job), *told[first:]], 0
        left = peer.break_after.pop(0) if peer.break_after else 10**6
        self._open_stream()
        for number, (name, value) in list(enumerate(told))[first:]:
            if left == 0:
                return
            left -= 1
            self._event(name, value, number)
            if name == "step" and value["step"] + 1 >= peer.steps_until:
                peer.streaming.set()
                peer.go_on.wait(60)
                break
        self._event(*peer.ended(job), number=len(told))

    def _stream(self) -> None:
        self._open_stream()
        others = [{"node": url, "url": url, "link": "up"} for url in self.peer.others]
        self._event("snapshot", {**SNAPSHOT, "at": 1.0, "nodes": [*SNAPSHOT["nodes"], *others]})
        events = [
            {"at": time.time(), "level": "warning", "node": "127.0.0.3", "text": "E1 \x1b[2Jlost"}
        ]
        self._event("log", {"events": events})
        for job in self.peer.jobs.values():
            self._event("job", summary(job))
        self.peer.streaming.set()
        self.peer.go_on.wait(60)

    def _open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b": keep-alive\n\n")
        self.close_connection = True

    def _event(self, name: str, value: Any, number: int | None = None) -> None:
        head = "" if number is None else f"id: {number}\n"
        self.wfile.write(f"{head}event: {name}\ndata: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def _may(self, path: str) -> bool:
        self.peer.seen.append((self.command, path, dict(self.headers)))
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._problem(401, "a token is needed")
        return False

    def _problem(self, status: int, detail: str, more: dict[str, str] | None = None) -> None:
        problem = {"type": "about:blank", "title": "no", "status": status, "detail": detail}
        self._send(status, "application/problem+json", json.dumps(problem).encode(), more)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(
        self, status: int, kind: str, content: bytes, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
