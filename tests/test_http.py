"""The HTTP listener over real sockets: who is answered, and what costs a hostile client what."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from http_server import SECONDS, Server, parse, read_reply, serving
from launcher.erlang import Atom
from launcher.nodes import address

REQUEST_MS = 1000
MAX_BODY = 4096
VANISHING, GIVEN_BACK_SECONDS = 20, 60.0
PRIVATE = ["/v1/cluster", "/v1/models", "/metrics", "/v1/jobs", "/v1/stream", "/v1/tree"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("run"), request_ms=REQUEST_MS, max_body=MAX_BODY
    ) as running:
        yield running


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer", "Bearer x", "Basic dGVzdA==", "Bearer test.AAAA", "Bearer .", "bearer a.b.c"],
)
def test_without_a_good_token_nothing_is_told(
    server: Server, path: str, authorization: str | None
) -> None:
    reply = server.ask(path, headers={"Authorization": authorization})
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.json()["status"] == 401


def test_a_token_is_good_for_its_own_name_only(server: Server) -> None:
    mac = server.bearer("alice").partition(".")[2]
    assert server.ask("/v1/models", headers={"Authorization": server.bearer("alice")}).status == 200
    forged = server.ask("/v1/models", headers={"Authorization": f"Bearer bob.{mac}"})
    assert forged.status == 401


def test_health_needs_no_token_and_tells_nothing_else(server: Server) -> None:
    anybody: dict[str, str | None] = {"Authorization": None}
    for path, told in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        reply = server.ask(path, headers=anybody)
        assert (reply.status, reply.json()) == (200, told)
    document = server.ask("/openapi.json", headers=anybody)
    assert document.status == 200
    for secret in (server.key.hex(), server.bearer(), server.host(1)):
        assert secret.encode() not in document.body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.9", "127.0.0.2", "", None])
def test_another_host_name_is_refused(server: Server, host: str | None) -> None:
    assert server.ask("/healthz", headers={"Host": host}).status == 403


def test_localhost_is_ours(server: Server) -> None:
    assert server.ask("/healthz", headers={"Host": f"localhost:{server.port}"}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.2", "http://127.0.0.2:1", ""]
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("GET", "/v1/cluster")])
def test_a_page_of_another_site_is_refused(
    server: Server, method: str, path: str, origin: str
) -> None:
    reply = server.ask(path, method, headers={"Origin": origin})
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers


def test_no_method_of_any_path_is_open_to_a_page_of_another_site(server: Server) -> None:
    anybody: dict[str, str | None] = {"Origin": "http://evil.example"}
    paths = json.loads(server.ask("/openapi.json").body)["paths"]
    assert "/v1/jobs/{id}" in paths
    for path, operations in paths.items():
        for method in {*map(str.upper, operations), "OPTIONS"}:
            reply = server.ask(re.sub("{.*?}", "0", path), method, headers=anybody)
            assert reply.status == 403, (method, path)
            assert not [name for name in reply.headers if name.startswith("access-control-")]


def test_a_page_of_another_site_makes_no_job_and_ends_none(server: Server) -> None:
    sent: dict[str, str | None] = {"Content-Type": "application/json"}
    foreign = {**sent, "Origin": "http://evil.example"}
    body = json.dumps({"prompt": "a", "steps": 250, "n": 16}).encode()
    before = listed(server)
    job = server.ask("/v1/jobs", "POST", headers=sent, body=body).json()["id"]
    for path in ("/v1/jobs", "/v1/images/generations"):
        assert server.ask(path, "POST", headers=foreign, body=body).status == 403
    assert listed(server) == [job, *before]
    assert server.ask(f"/v1/jobs/{job}", "DELETE", headers=foreign).status == 403
    assert server.ask(f"/v1/jobs/{job}").json()["status"] in ("queued", "running")
    assert server.ask(f"/v1/jobs/{job}", "DELETE").json()["status"] == "cancelled"


def listed(server: Server) -> list[str]:
    """The ids of the newest jobs."""
    return [one["id"] for one in server.ask("/v1/jobs").json()["data"]]


def test_our_own_page_and_that_of_another_node_are_answered(server: Server) -> None:
    own = server.ask("/v1/models", headers={"Origin": server.url()})
    assert own.status == 200
    other = server.url(1)
    told = server.ask("/v1/models", headers={"Origin": other})
    assert (told.status, told.headers["access-control-allow-origin"]) == (200, other)
    preflight = server.ask(
        "/v1/jobs",
        "OPTIONS",
        headers={
            "Origin": other,
            "Authorization": None,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        },
    )
    assert preflight.status == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/nothing", "/v1/jobs/", "//", "/v1", "/healthz/x"])
def test_what_is_not_there_is_404(server: Server, path: str) -> None:
    assert server.ask(path).status == 404


@pytest.mark.parametrize("path", ["/%00", "/a%2fb", "/%ff", "/?a=%ff", "/v1/jobs/%2e%2e%2fx"])
def test_a_path_that_is_none_is_400(server: Server, path: str) -> None:
    assert server.ask(path).status == 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/v1/images/generations", "POST"),
        ("PUT", "/v1/jobs", "POST, GET, HEAD"),
        ("BREW", "/v1/models", "GET, HEAD"),
    ],
)
def test_another_method_is_405_with_those_that_are_there(
    server: Server, method: str, path: str, allow: str
) -> None:
    reply = server.ask(path, method)
    assert (reply.status, reply.headers["allow"]) == (405, allow)


def test_a_large_body_is_413_before_it_is_read(server: Server) -> None:
    reply = server.ask("/v1/jobs", "POST", headers={"Content-Length": str(10**12)}, body=b"{")
    assert reply.status == 413
    reply = server.ask("/v1/jobs", "POST", body=b" " * (MAX_BODY + 1))
    assert reply.status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "-1"},
        {"Content-Length": "0x10"},
        {"Content-Length": "1, 1"},
        {"Content-Length": "9" * 30},
    ],
)
def test_a_length_that_is_none_is_400(server: Server, headers: dict[str, str | None]) -> None:
    assert server.ask("/v1/jobs", "POST", headers=headers).status == 400


def test_a_body_in_chunks_is_411(server: Server) -> None:
    reply = server.ask(
        "/v1/jobs", "POST", headers={"Transfer-Encoding": "chunked"}, body=b"0\r\n\r\n"
    )
    assert reply.status == 411


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET http://127.0.0.2/healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/3.0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_a_problem_with_our_headers(
    server: Server, request_bytes: bytes
) -> None:
    with server.connect() as sock:
        sock.sendall(request_bytes)
        reply = read_reply(sock)
    assert reply.status in (400, 431)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["server"] == "baguette"
    assert reply.json()["status"] == reply.status


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/v1/cluster", "/openapi.json"])
def test_every_answer_has_the_security_headers(server: Server, path: str) -> None:
    headers = server.ask(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "baguette"


def test_head_is_get_without_a_body(server: Server) -> None:
    reply = server.ask("/healthz", "HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


def test_a_connection_serves_several_requests(server: Server) -> None:
    with server.connect() as sock:
        for _ in range(3):
            sock.sendall(f"GET /healthz HTTP/1.1\r\nHost: {server.host()}\r\n\r\n".encode())
            assert parse(sock.recv(65536)).json() == {"status": "ok"}


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_a_client_that_dribbles_is_cut_off(server: Server, begun: bytes) -> None:
    with server.connect() as sock:
        start = time.monotonic()
        sock.sendall(begun)
        sock.settimeout(0.2)
        reply = b""
        while time.monotonic() - start < SECONDS:
            try:
                sock.sendall(b"x")  # a byte now and then, so that it is never silent
                if not (chunk := sock.recv(4096)):
                    break
                reply += chunk
            except TimeoutError:
                continue
            except OSError:
                break
        seconds = time.monotonic() - start
    assert seconds < 2 * REQUEST_MS / 1000 + 2
    assert b" 408 " in reply.split(b"\r\n")[0]


HALF_BODY = b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"


def test_a_client_that_vanishes_gives_back_what_it_took(server: Server) -> None:
    def open_streams() -> float:
        text = server.ask("/metrics").body.decode()
        return float(re.findall(r"^baguette_http_open_streams (\S+)$", text, re.MULTILINE)[0])

    node = psutil.Process(server.fleet.cluster.nodes[0].pid)
    stream = f"GET /v1/stream HTTP/1.1\r\nHost: {server.host()}\r\n"
    stream += f"Authorization: {server.bearer()}\r\n\r\n"
    before, files = open_streams(), node.num_fds()
    with contextlib.ExitStack() as clients:
        for number in range(2 * VANISHING):
            sock = clients.enter_context(server.connect())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(stream.encode() if number % 2 else HALF_BODY)
            if number % 2:
                assert sock.recv(1)  # it is open
        assert open_streams() >= before + VANISHING
        assert node.num_fds() >= files + VANISHING
    deadline = time.monotonic() + GIVEN_BACK_SECONDS
    while open_streams() > before or node.num_fds() > files:
        assert time.monotonic() < deadline, (open_streams(), node.num_fds(), before, files)
        time.sleep(0.1)


def test_the_cluster_is_told_as_it_is(server: Server) -> None:
    told = server.ask("/v1/cluster?events=5").json()
    assert told["node"] == address(0)
    assert [node["node"] for node in told["nodes"]] == [address(0), address(1)]
    assert all(expert["holders"] for expert in told["experts"])
    assert {(link["from"], link["to"]) for link in told["links"]} == {
        (address(0), address(1)),
        (address(1), address(0)),
    }
    assert len(told["events"]) == 5
    assert all(event["text"] for event in told["events"])
    assert server.ask("/v1/cluster?events=x").json()["field"] == "events"


def test_the_tree_of_a_node_that_is_none_is_404(server: Server) -> None:
    assert server.ask(f"/v1/tree?node={address(1)}").json()["node"] == address(1)
    for other in ("127.0.0.99", "", "baguette@127.0.0.3", f"{address(1)}%00", "x" * 4000):
        reply = server.ask(f"/v1/tree?node={other}")
        assert reply.status == 404, other
        assert "/v1/cluster" in reply.json()["detail"]


METRIC = re.compile(
    r'(baguette_[a-z0-9_]+)(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? '
    r"[-+]?([0-9.]+(e[-+]?[0-9]+)?|Inf)"
)


def test_metrics_are_what_prometheus_reads(server: Server) -> None:
    # the last thing that there is to tell of two nodes that have just met
    while b"link_round_trip_seconds" not in (reply := server.ask("/metrics")).body:
        time.sleep(0.1)
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    types: dict[str, str] = {}
    seen = set()
    for line in reply.body.decode().splitlines():
        if line.startswith("# HELP "):
            name, _, text = line[7:].partition(" ")
            assert text
            assert name not in types
            types[name] = ""
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            assert types[name] == ""
            types[name] = kind
        else:
            match = METRIC.fullmatch(line)
            assert match, line
            assert line.rpartition(" ")[0] not in seen, line
            seen.add(line.rpartition(" ")[0])
            assert match[1] in types or re.sub("_(bucket|sum|count)$", "", match[1]) in types
    assert types["baguette_http_requests_total"] == "counter"
    assert types["baguette_link_up"] == "gauge"
    assert types["baguette_calls_total"] == "counter"
    assert all((kind == "counter") == name.endswith("_total") for name, kind in types.items())


FAKE_TAILSCALE = """#!/bin/sh
echo "$@" >> {log}
[ "$1" = whois ] || exit 1
[ "$3" = {known} ] || exit 1
cat <<'JSON'
{answer}
JSON
"""


def fake_tailscale(directory: Path, known: str) -> Path:
    """Names a user for one address; every question is logged."""
    answer = {
        "Node": {"Addresses": [f"{known}/32"]},
        "UserProfile": {"LoginName": "ann@example.com"},
    }
    path = directory / "tailscale"
    path.write_text(
        FAKE_TAILSCALE.format(log=directory / "asked", known=known, answer=json.dumps(answer))
    )
    path.chmod(0o700)
    return path


def test_whois_stands_in_for_a_token_and_a_forged_header_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The loopback address that this machine's connections to a node come from.
    own = "127.0.0.1"
    cli = fake_tailscale(tmp_path, own)
    monkeypatch.setenv("PATH", f"{cli.parent}:/usr/bin:/bin:/usr/local/bin")
    with serving(tmp_path / "run", 1, whois=Atom("true")) as server:
        for _ in range(3):
            assert server.ask("/v1/models", headers={"Authorization": None}).status == 200
        forged = {"Authorization": None, "X-Forwarded-For": own, "Forwarded": f"for={own}"}
        request = "\r\n".join(
            ["GET /v1/models HTTP/1.1", f"Host: {server.host()}", "Connection: close"]
            + [f"{name}: {value}" for name, value in forged.items() if value]
        )
        with socket.create_connection(
            (address(0), server.port), timeout=SECONDS, source_address=("127.0.0.77", 0)
        ) as sock:
            sock.sendall(f"{request}\r\n\r\n".encode())
            assert read_reply(sock).status == 401
        # a bad token is not made good by the address it comes from
        assert server.ask("/v1/models", headers={"Authorization": "Bearer x.y"}).status == 401
    asked = (tmp_path / "asked").read_text().split("\n")[:-1]
    assert sorted(asked) == [f"whois --json {own}", "whois --json 127.0.0.77"]
