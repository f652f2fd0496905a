"""However a cluster ends - `down`, an interrupt, the launcher's death - no process is left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.control import start
from launcher.erlang import Target, write_cookie
from launcher.nodes import node_name
from live import TAG, free_port, launcher, leftovers, tagged

PATIENCE = 120.0
WORKERS = (b"baguette.worker\0expert", b"baguette.worker\0pipeline")


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    tag = uuid.uuid4().hex
    monkeypatch.setenv(TAG, tag)
    yield tag
    leftovers(tag, 0.0)


def options(model_dir: Path, out: Path) -> dict[str, str]:
    return {"MODEL": str(model_dir), "NODES": "2", "PORT": str(free_port(2)), "OUT": str(out)}


def until_all_work(tag: str, process: subprocess.Popen[str]) -> None:
    """Until two nodes, their two expert workers and the pipeline worker are there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        lines = []
        for found in tagged(tag):
            path = Path(f"/proc/{found.pid}/cmdline")
            lines.append(path.read_bytes() if path.exists() else b"")
        counts = [sum(worker in line for line in lines) for worker in WORKERS]
        if counts == [2, 1]:
            return
        time.sleep(0.05)
    raise AssertionError("the nodes never had their workers")


def test_up_then_down_leaves_nothing(tag: str, three: Path, tmp_path: Path) -> None:
    given = options(three, tmp_path / "x.png")
    up = launcher(tmp_path / "run", "up", **given)
    said, _ = up.communicate(timeout=PATIENCE)
    assert up.returncode == 0, said
    assert tagged(tag)
    status = launcher(tmp_path / "run", "status", **given)
    assert "127.0.0.3" in status.communicate(timeout=PATIENCE)[0]
    down = launcher(tmp_path / "run", "down", **given)
    said, _ = down.communicate(timeout=PATIENCE)
    assert (down.returncode, said) == (0, "2 nodes stopped\n")
    assert leftovers(tag) == []
    assert not (tmp_path / "run" / given["PORT"] / "xdg").exists()


def test_workers_that_cannot_start_are_told_with_their_last_words(
    tag: str, three: Path, tmp_path: Path
) -> None:
    (tmp_path / "run" / "cores").mkdir(parents=True)  # what they want is a file
    demo = launcher(tmp_path / "run", "demo", **options(three, tmp_path / "x.png"))
    said, _ = demo.communicate(timeout=PATIENCE)
    assert demo.returncode != 0
    assert "dies at every start (exit status 1, times 3" in said
    assert "Is a directory" in said
    assert leftovers(tag) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_demo_ended_at_its_start_leaves_nothing(
    tag: str, three: Path, tmp_path: Path, number: signal.Signals
) -> None:
    demo = launcher(tmp_path / "run", "demo", **options(three, tmp_path / "x.png"))
    until_all_work(tag, demo)
    ended(demo, number, tag)
    assert not (tmp_path / "x.png").exists()


def test_a_demo_killed_while_it_draws_leaves_nothing(tag: str, three: Path, tmp_path: Path) -> None:
    long = {"STEPS": "250", "N": "64"}
    demo = launcher(tmp_path / "run", "demo", **long, **options(three, tmp_path / "x.png"))
    assert demo.stdout is not None
    while "step" not in (line := demo.stdout.readline()):
        assert line, "the demo ended before it drew"
    ended(demo, signal.SIGKILL, tag)
    assert not (tmp_path / "x.png").exists()


def test_a_control_node_that_nobody_hears_ends(tag: str, tmp_path: Path) -> None:
    """Of a launcher that died the reading end may be found gone first."""
    write_cookie(tmp_path, secrets.token_hex(32))
    target = Target(node_name(0), free_port(1), tmp_path, tmp_path / "node.log")
    control = start(target, "control", tmp_path / "control.log")
    assert control.stdin is not None
    assert control.stdout is not None
    control.stdout.close()
    control.stdin.write(b'{"do": "connect", "deadline_ms": 0}\n')
    control.stdin.flush()
    assert control.wait(PATIENCE) != 0
    assert leftovers(tag) == []


def ended(demo: subprocess.Popen[str], number: signal.Signals, tag: str) -> None:
    """Signal the launcher; nothing that it started outlives it for long."""
    os.kill(demo.pid, number)
    demo.communicate(timeout=PATIENCE)
    assert demo.returncode != 0
    assert leftovers(tag, 30.0) == []
