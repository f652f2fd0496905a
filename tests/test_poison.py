"""A request that kills whatever computes it: it fails by name, and takes nobody along."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from launcher.control import Control
from launcher.drawing import Request, pixels
from launcher.erlang import child_environment
from launcher.nodes import Cluster, Launch
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.simulated import Device, Fleet, cluster_of, fleet
from launcher.waiting import CONNECT_SECONDS
from live import ROOT, free_port

POISON = "poison"
SIMULATED, REAL = 4, 3
# Others' generations, and where each is asked for; the poisoned one is the first node's.
REQUESTERS = (0, 0, 1, 1)
RECOVERY_SECONDS = 60.0
REQUEST = {"prompt": "any words at all", "steps": 12, "n": 2}
Running = contextlib.AbstractContextManager[Fleet]


def simulated() -> Running:
    """Nodes whose devices die of the prompt."""
    more = {"poison": POISON, "restart_ms": 100}
    device = Device(batch_us=3000, row_us=1000, load_ms=20, more=more)
    return fleet(free_port(SIMULATED), SIMULATED, device, Progress())


def real(model_dir: Path, fault: Path) -> Running:
    """Nodes whose real workers die of the prompt."""
    fault.write_text(json.dumps({"do": "die", "on": "velocity", "prompt": POISON}))
    engine = {
        "python": str(ROOT / "tests" / "faulty" / "python"),
        "child_env": [*child_environment(), ("BAGUETTE_FAULT", str(fault))],
    }
    cluster = Cluster(free_port(REAL), mode="test")
    return cluster_of(cluster, Launch(REAL, model_dir, engine=engine), Progress())


@pytest.mark.usefixtures("own_run")
def test_a_poisoned_request_takes_no_simulated_node_along() -> None:
    with simulated() as running:
        poisoned_among_others(running, SIMULATED)


@pytest.mark.usefixtures("own_run")
def test_a_poisoned_request_takes_no_real_worker_along(three: Path, tmp_path: Path) -> None:
    with real(three, tmp_path / "fault") as running:
        poisoned_among_others(running, REAL)


def poisoned_among_others(running: Fleet, count: int) -> None:
    """One of five generations is poisoned; the other four are what they are without it."""
    with contextlib.ExitStack() as stack:
        others = [
            stack.enter_context(Control(running.target(index), f"other-{number}"))
            for number, index in enumerate(REQUESTERS)
        ]
        for control in others:
            control.connect(CONNECT_SECONDS)
        undisturbed = [draw(control, seed) for seed, control in enumerate(others)]
        before = deaths(running, count)
        ask(running.control, {**REQUEST, "prompt": POISON, "top_k": 1, "n": 1})
        for seed, control in enumerate(others):
            ask(control, {**REQUEST, "seed": seed})
        with pytest.raises(Refused, match=r"call of one expert failed .*deaths 3.*why died"):
            running.control.answer("done")
        assert [pixels(control.answer("done")["result"]) for control in others] == undisturbed
        # A call that was late may have been with two of them.
        assert deaths(running, count) - before in (3, 4)
        whole_again(running, count)
        assert [draw(control, seed) for seed, control in enumerate(others)] == undisturbed


def whole_again(running: Fleet, count: int) -> None:
    """Every expert has a holder and every node's engine is at work."""
    running.control.ask("ready", nodes=count, deadline_ms=int(RECOVERY_SECONDS * 1000))
    running.control.answer("ready")
    assert all(node.alive() for node in running.cluster.nodes)
    assert len(running.figures()) == count


def deaths(running: Fleet, count: int) -> int:
    """Workers that have died on all nodes so far; every node answers."""
    figures = running.figures()
    assert len(figures) == count
    return sum(worker.get("deaths", 0) for node in figures for worker in node["workers"])


def ask(control: Control, request: Request) -> None:
    """Ask for a picture; the answer is read later."""
    control.ask("generate", request=request, watch=False)


def draw(control: Control, seed: int) -> list[str]:
    """Ask for a picture and wait for it."""
    ask(control, {**REQUEST, "seed": seed})
    return pixels(control.answer("done")["result"])
