"""Ten times more than a cluster can draw: refused at the door, and memory stays as it is.

The devices are simulated, slow enough that nothing else is short: what waits, waits for them. Every
node is asked over HTTP by a client that does not care for `Retry-After`.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from http_server import Server
from launcher.loads import Load, Order, different, requesters
from launcher.nodes import Launch, node_name
from launcher.simulated import Device, expert
from live import free_web_port, running

NODES, TIMES = 4, 10
RUNNING, WAITING, JOBS = 8, 4, 4
ASKS_MIB = 1
# Canonical calls take 20 ms a row, and each step of a picture asks everybody.
DEVICE = Device(batch_us=18_000, row_us=2_000, load_ms=20, experts=NODES)
REQUEST = {"prompt": "a", "n": 4, "steps": 4, "top_k": "full", "deterministic": True}
SEEDS = 3
WARM_SECONDS, SECONDS, PATIENCE = 5.0, 10.0, 120.0
LOOK_SECONDS, OFFER_SECONDS = 0.2, 0.02
# What was not collected yet differs from moment to moment, by 2 MiB as a rule; of some 28.
SLACK_KIB = 8 << 10
MIB = 1 << 20
JSON: dict[str, str | None] = {"Content-Type": "application/json"}


@dataclass
class Look:
    """What was seen of every node at one moment."""

    at: float
    memory_kib: list[int]
    waiting_bytes: list[int]
    gauges: list[dict[str, float]]


@dataclass
class Offers:
    """What was asked of one node over HTTP, and what it said."""

    server: Server
    index: int
    taken: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    def post(self) -> None:
        """One more job."""
        seed = len(self.taken) % SEEDS
        body = json.dumps({**REQUEST, "seed": seed}).encode()
        reply = self.server.ask("/v1/jobs", "POST", JSON, body, self.index)
        if reply.status == 202:
            self.taken[reply.json()["id"]] = seed
        else:
            assert (reply.status, reply.json()["type"]) == (429, "urn:baguette:overloaded")
            assert int(reply.headers["retry-after"]) >= 1
            self.refused += 1

    def ended(self) -> list[tuple[int, list[str]]]:
        """The seed and the pictures of every job that was taken, once all have ended."""
        return [(seed, self._pictures(ident)) for ident, seed in self.taken.items()]

    def _pictures(self, ident: str) -> list[str]:
        deadline = time.monotonic() + PATIENCE
        while True:
            job = self.server.ask(f"/v1/jobs/{ident}", index=self.index).json()
            if job["status"] not in ("queued", "running"):
                assert job["status"] == "completed", job["error"]
                return [image["pixels_sha256"] for image in job["images"]]
            assert time.monotonic() < deadline, job
            time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    run = tmp_path_factory.mktemp("run")
    port = free_web_port(NODES)
    engine = {
        **DEVICE.settings(NODES),
        "max_running": RUNNING,
        "max_waiting": WAITING,
        "max_asks_mib": ASKS_MIB,
    }
    web = {"max_jobs": JOBS, "max_client_jobs": JOBS}
    launch = Launch(NODES, None, web_port=port, engine=engine, web=web, requesters=NODES)
    with running(run, launch, uuid.uuid4().hex) as fleet:
        fleet.at_rest(NODES, rest_seconds=1.0)
        yield Server(fleet, run, port)


def metrics(server: Server, index: int) -> dict[str, float]:
    """A node's counters and gauges without labels."""
    text = server.ask("/metrics", index=index).body.decode()
    return {n: float(v) for n, v in re.findall(r"^baguette_(\w+) (\S+)$", text, re.MULTILINE)}


def look(server: Server) -> Look:
    figures = {f["node"]: f for f in server.fleet.figures()}
    nodes = [figures[node_name(i)] for i in range(NODES)]
    return Look(
        at=time.monotonic(),
        memory_kib=[node["memory_kib"] for node in nodes],
        waiting_bytes=[expert(node)["waiting_bytes"] for node in nodes],
        gauges=[metrics(server, i) for i in range(NODES)],
    )


def overload(server: Server) -> tuple[list[Offers], list[Look]]:
    """Ask every node for TIMES what it takes, and look meanwhile."""
    nodes = [Offers(server, i) for i in range(NODES)]
    over = threading.Event()

    def offer(node: Offers) -> None:
        while not over.wait(OFFER_SECONDS):
            node.post()

    with ThreadPoolExecutor(NODES) as pool:
        offering = [pool.submit(offer, node) for node in nodes]
        try:
            looks = list(until_enough(server, nodes))
        finally:
            over.set()
        for each in offering:
            each.result()
    return nodes, looks


def until_enough(server: Server, nodes: list[Offers]) -> Iterator[Look]:
    """Looks, until the time is over and every node was asked for so much more than it took."""
    began = time.monotonic()
    while True:
        yield look(server)
        past = time.monotonic() - began
        enough = all(n.refused >= (TIMES - 1) * len(n.taken) for n in nodes)
        if past >= WARM_SECONDS + SECONDS and enough:
            return
        assert past < PATIENCE, [(len(n.taken), n.refused) for n in nodes]
        time.sleep(LOOK_SECONDS)


def check_flat(looks: list[Look]) -> None:
    """No node has more at the end than it had once it was warm."""
    warm = [x for x in looks if x.at - looks[0].at >= WARM_SECONDS]
    first, last = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    for node in range(NODES):
        before, after = (max(x.memory_kib[node] for x in part) for part in (first, last))
        assert after <= before + SLACK_KIB, (node, [x.memory_kib[node] for x in warm])


def check_bounded(looks: list[Look]) -> None:
    """No queue was ever longer than it may be."""
    bounds = {
        "generations_running": RUNNING,
        "generations_waiting": WAITING,
        "jobs_queued": JOBS,
        "jobs_running": RUNNING,
    }
    for each in looks:
        assert max(each.waiting_bytes) <= ASKS_MIB * MIB
        for name, bound in bounds.items():
            assert max(gauges[name] for gauges in each.gauges) <= bound, name


def test_ten_times_more_than_can_be_drawn(server: Server) -> None:
    nodes, looks = overload(server)
    check_flat(looks)
    check_bounded(looks)

    # All that was taken ends, as the pictures they would have been anyway.
    pictures: dict[int, set[str]] = {}
    for node in nodes:
        for seed, hashes in node.ended():
            pictures.setdefault(seed, set()).add("-".join(hashes))
    assert [len(pictures[seed]) for seed in range(SEEDS)] == [1] * SEEDS

    # Holders had no room, and nobody took that for a death.
    told = [metrics(server, i) for i in range(NODES)]
    assert sum(node["asks_refused_total"] for node in told) > 0
    assert all(expert(figures)["deaths"] == 0 for figures in server.fleet.figures())


def test_the_engines_own_door(server: Server) -> None:
    most = TIMES * (RUNNING + WAITING)
    with requesters(server.fleet, 1) as controls:
        request = {**REQUEST, "n": 1}
        drawn = Load(controls, Order(request, most, most, seeds=SEEDS)).ended()
    refused: list[Any] = [picture["why"]["name"] for picture in drawn if not picture["ok"]]
    assert set(refused) == {"overloaded"}
    assert len(drawn) - len(refused) >= RUNNING + WAITING
    assert len(refused) >= most // 2
    assert different(drawn) == 0
