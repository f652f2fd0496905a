"""Jobs outlive their node: killed before the first step and in the middle, and with a full disk.

The devices are simulated: what a picture's bytes depend on is the same, and a step is as long as
a test needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baguette.remote.job import ENDS
from http_server import Reply, Server, serving
from launcher.nodes import Launch
from launcher.simulated import Device
from live import free_web_port, running

# A picture of 30 steps takes about three seconds, so that there is a middle to be killed in.
SLOW = Device(batch_us=40_000, row_us=10_000, load_ms=20, more={"encode_us": 500_000})
JSON: dict[str, str | None] = {"Content-Type": "application/json"}
PATIENCE = 60.0
Job = dict[str, Any]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def post(server: Server, **fields: Any) -> Reply:
    body = json.dumps({"prompt": "a red circle", "deterministic": True, **fields}).encode()
    return server.ask("/v1/jobs", "POST", headers=JSON, body=body)


def submit(server: Server, **fields: Any) -> str:
    reply = post(server, **fields)
    assert reply.status == 202, reply.body
    return str(reply.json()["id"])


def job(server: Server, ident: str) -> Job:
    reply = server.ask(f"/v1/jobs/{ident}")
    assert reply.status == 200, reply.body
    value: Job = reply.json()
    return value


def ended(server: Server, ident: str) -> Job:
    until(lambda: job(server, ident)["status"] in ENDS)
    return job(server, ident)


def pixels(drawn: Job) -> list[str]:
    assert drawn["status"] == "completed", drawn["error"]
    return [image["pixels_sha256"] for image in drawn["images"]]


def kill_and_start(server: Server) -> None:
    """kill -9 of the first node, and another start of it."""
    node = server.fleet.cluster.nodes[0]
    node.signal(signal.SIGKILL)
    until(lambda: not node.alive())
    server.fleet.start_node(0)

    def answers() -> bool:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return server.ask("/healthz").status == 200
        return False

    until(answers)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, device=SLOW, checkpoint_ms=200) as started:
        yield started


def test_a_killed_node_goes_on_with_its_jobs(server: Server) -> None:
    undisturbed = ended(server, submit(server, seed=7, n=2, steps=30))

    ident = submit(server, seed=7, n=2, steps=30)
    kill_and_start(server)
    again = ended(server, ident)
    assert pixels(again) == pixels(undisturbed)
    assert again["resumed"] == 1

    ident = submit(server, seed=7, n=2, steps=30)
    waiting = submit(server, seed=8, steps=5)
    until(lambda: job(server, ident)["step"] > 10)
    kill_and_start(server)
    until(lambda: job(server, ident)["status"] == "running")
    assert job(server, ident)["step"] > 5, "it was begun anew, not resumed"
    again = ended(server, ident)
    assert pixels(again) == pixels(undisturbed)
    assert [entry["step"] for entry in again["routing"]] == list(range(30))
    assert again["routing"][-1]["experts"] == undisturbed["routing"][-1]["experts"]
    assert ended(server, waiting)["status"] == "completed"

    # What has ended stays as it ended.
    kill_and_start(server)
    assert job(server, ident) == again


def test_a_real_picture_is_the_same_after_a_kill(three: Path, tmp_path: Path) -> None:
    port = free_web_port(2)
    launch = Launch(2, three, web_port=port, web={"checkpoint_ms": 0})
    with running(tmp_path, launch, uuid.uuid4().hex) as fleet:
        server = Server(fleet, tmp_path, port)
        undisturbed = ended(server, submit(server, seed=5, steps=250))
        ident = submit(server, seed=5, steps=250)
        until(lambda: job(server, ident)["step"] > 20)
        kill_and_start(server)
        again = ended(server, ident)
    assert pixels(again) == pixels(undisturbed)
    assert again["resumed"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "none", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Take all there is; the file that has it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


def test_a_full_disk_is_an_error_and_no_job(small_disk: Path, tmp_path: Path) -> None:
    with serving(tmp_path, 1, SLOW, jobs_dir=str(small_disk / "jobs")) as server:
        filler = fill(small_disk)
        refused = post(server)
        assert refused.status == 507
        assert refused.json()["type"] == "urn:baguette:store_failed"
        assert server.ask("/v1/jobs").json()["data"] == []
        assert list((small_disk / "jobs").iterdir()) == []
        filler.unlink()

        # Full while it is drawn, of many steps: one end, which no restart changes.
        ident = submit(server, steps=250)
        until(lambda: job(server, ident)["step"] > 2)
        filler = fill(small_disk)
        failed = ended(server, ident)
        assert (failed["status"], failed["error"]["status"]) == ("failed", 507)
        kill_and_start(server)
        assert job(server, ident)["status"] == "failed"
        filler.unlink()
        kill_and_start(server)
        assert job(server, ident)["status"] == "failed"
        until(lambda: server.ask("/readyz").status == 200)
        assert ended(server, submit(server, steps=2))["status"] == "completed"
