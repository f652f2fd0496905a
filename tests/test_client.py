"""The client against real nodes: pictures over HTTP are the reference's, and what an end costs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agreement import reference
from baguette.__main__ import main
from baguette.commands import on_cluster
from baguette.pipeline import Pipeline
from baguette.remote.job import look
from baguette.remote.node import Node
from baguette.remote.place import given_token, read_place
from http_server import Server, serving, serving_model
from launcher.processes import wait_gone

WHY = r"^(DOWN: no node holds expert \d|DEGRADED: .*127\.0\.0\.3)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, three: Path) -> Iterator[Server]:
    with serving_model(tmp_path_factory.mktemp("run"), three) as running:
        yield running


@pytest.fixture(autouse=True)
def asked_here(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAGUETTE_NODE", server.url())
    monkeypatch.setenv("BAGUETTE_TOKEN", server.bearer().removeprefix("Bearer "))


def asked(server: Server) -> Node:
    place = read_place("url", server.url())
    return Node(place, given_token(None, place))


@pytest.mark.parametrize("way", ["remote", "generate.py"])
def test_pictures_over_http_are_the_references(
    server: Server, reference_three: Pipeline, capfd: Any, way: str
) -> None:
    words = ["a cat", "--num_samples", "2", "--num_steps", "3", "--seed", "5", "--cfg_scale", "2"]
    words += ["--deterministic", "--separate", "--output", "a.png", "--json", "-"]
    command = ["remote", "generate"] if way == "remote" else ["generate", "--cluster", server.url()]
    assert main([*command, *words]) == 0
    out, err = capfd.readouterr()
    record = json.loads(out)
    wanted = {"prompt": "a cat", "n": 2, "steps": 3, "seed": 5, "guidance_scale": 2.0}
    expected = reference(reference_three, wanted)
    assert [i["pixels_sha256"] for i in record["images"]] == [
        i["pixels_sha256"] for i in expected["images"]
    ]
    routes = [[tuple(step["experts"]) for step in image] for image in expected["routing"]]
    assert [[tuple(step["experts"]) for step in image] for image in record["routing"]] == routes
    assert "a_1.png, a_2.png" in err


def test_a_url_needs_no_launcher(
    server: Server, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_cluster, "connect", None)
    given = ["--num_samples", "1", "--num_steps", "1"]
    assert main(["generate", "a", *given, "--cluster", server.url()]) == 0
    assert main(["generate", "a", *given, "--cluster", "127.0.0.2"]) == 2
    assert "--cluster without http:// is for" in capfd.readouterr().err


def test_what_the_node_refuses_is_its_sentence(capfd: Any) -> None:
    assert main(["remote", "generate", "a", "--num_steps", "9999"]) == 1
    err = capfd.readouterr().err
    assert "steps" in err
    assert err.count("\n") == 1
    assert main(["remote", "watch", "nothing-of-the-kind"]) == 1
    assert "job" in capfd.readouterr().err


def test_an_interrupt_cancels_the_job_at_the_node(server: Server, capfd: Any) -> None:
    words = ["remote", "generate", "a cat", "--num_samples", "4", "--num_steps", "200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "baguette", *words, "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Drawing 1 prompt on http://127.0.0.2")
    while not (running := listed(capfd, "running")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert f"cancelling job {running[0]}" in err
    assert look(asked(server), running[0])["status"] == "cancelled"


def listed(capfd: Any, status: str) -> list[str]:
    """The ids of the jobs in this state, newest first."""
    assert main(["remote", "jobs", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["data"]
    return [job["id"] for job in found if job["status"] == status]


def test_a_detached_job_is_watched_and_listed(capfd: Any) -> None:
    words = ["--num_samples", "1", "--num_steps", "2", "--detach"]
    assert main(["remote", "generate", "a dog", *words]) == 0
    job_id = capfd.readouterr().out.strip()
    assert main(["remote", "watch", job_id, "--output", "dog.png", "--visualize"]) == 0
    assert "dog.png: 1 image in" in capfd.readouterr().out
    assert main(["remote", "jobs"]) == 0
    assert f"{job_id}       completed" in capfd.readouterr().out
    assert main(["remote", "cancel", job_id]) == 0
    assert capfd.readouterr().out == f"{job_id} completed\n"


def test_the_cluster_and_its_top(capfd: Any) -> None:
    assert main(["remote", "cluster"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("READY, as http://127.0.0.2")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("127.")] == [
        "itself",
        "up",
    ]
    assert sorted(line[:2] for line in out.splitlines() if line.startswith("E")) == [
        "E0",
        "E1",
        "E2",
    ]
    assert main(["top"]) == 0
    out = capfd.readouterr().out
    for shown in ("READY", "E2 127.0.0.", "EVENTS", "joined the cluster"):
        assert shown in out


def test_why_it_is_not_ready_is_a_sentence(
    tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "run", 2) as server:
        monkeypatch.setenv("BAGUETTE_NODE", server.url())
        monkeypatch.setenv("BAGUETTE_TOKEN", server.bearer().removeprefix("Bearer "))
        node = server.fleet.cluster.nodes[1]
        node.signal(signal.SIGKILL)
        assert wait_gone([node], 10) == []
        while (health := asked(server).ask("GET", "/v1/cluster"))["state"] == "ready":
            time.sleep(0.1)
        assert health["reasons"]
        for command in (["remote", "cluster"], ["top"]):
            assert main(command) == 0
            out = capfd.readouterr().out
            assert re.search(WHY, out, re.MULTILINE), out
            assert "None" not in out


def test_a_node_that_dies_in_the_middle_goes_on_with_the_job(
    server: Server, capfd: Any, reference_three: Pipeline
) -> None:
    words = ["remote", "generate", "a fox", "--num_samples", "1", "--num_steps", "200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "baguette", *words, "--deterministic", "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    while not listed(capfd, "running"):
        assert process.poll() is None
    node = server.fleet.cluster.nodes[0]
    node.signal(signal.SIGKILL)
    assert wait_gone([node], 10) == []
    server.fleet.start_node(0)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "trying again for 60 s" in err
    wanted = {"prompt": "a fox", "n": 1, "steps": 200}
    expected = reference(reference_three, wanted)["images"][0]["pixels_sha256"]
    assert json.loads(out)["pixels_sha256"] == expected
