"""A real cluster for a test: started through the launcher's own pieces, gone afterwards.

Used by conftest.py and the tests beside it. Every process that comes of a test carries TAG in its
environment, whoever its parent has become, so "nothing is left" means nothing with that tag.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import nodes
from launcher.control import Control
from launcher.drawing import PATIENCE as PATIENCE
from launcher.drawing import Drawing, Request, Result
from launcher.nodes import Cluster, Launch, address, index_of
from launcher.processes import Process, wait_gone
from launcher.progress import Progress
from launcher.simulated import Fleet, cluster_of
from launcher.waiting import become_ready

ROOT = Path(__file__).resolve().parents[1]
TAG = "BAGUETTE_TEST"

# The launcher in a process of its own, with its run directory elsewhere.
LAUNCHER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from launcher import commands, demo, nodes
from launcher.options import Options
nodes.RUN = Path(sys.argv[2])
demo.RECORD = nodes.RUN / "demo.json"
sys.exit(commands.COMMANDS[sys.argv[3]](Options.read(os.environ)))
"""


def launcher(run: Path, command: str, **options: str) -> subprocess.Popen[str]:
    """`scripts/cluster.py COMMAND` with its own run directory; output is read by the caller."""
    clean = {k: v for k, v in os.environ.items() if k not in ("NODES", "PORT", "MODEL", "OUT")}
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(ROOT / "scripts"), str(run), command],
        env={**clean, **options},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tagged(tag: str) -> list[Process]:
    """Every process that was started with this tag, ourselves not counted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if f"{TAG}={tag}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                process = Process.of(int(entry.name))
                found += [process] if process else []
    return found


def leftovers(tag: str, seconds: float = 15.0) -> list[str]:
    """Command lines of what is still there after at most `seconds`; it is then killed."""
    left = [process for process in wait_gone(tagged(tag), seconds) if process.alive()]
    lines = [Path(f"/proc/{p.pid}/cmdline").read_bytes().replace(b"\0", b" ") for p in left]
    for process in left:
        process.signal(signal.SIGKILL)
    return [line.decode(errors="replace")[:200] for line in lines]


def free_port(count: int) -> int:
    """A port that is free on the first `count` node addresses."""
    for port in range(21000 + os.getpid() % 4000 * 5, 65000):
        with contextlib.ExitStack() as stack:
            try:
                for i in range(count):
                    probe = stack.enter_context(socket.socket())
                    probe.bind((address(i), port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free on the loopback addresses")


def free_web_port(count: int) -> int:
    """A port for HTTP on those addresses; the kernel's choice, so never one of free_port's."""
    while True:
        with contextlib.ExitStack() as stack:
            port = 0
            try:
                for i in range(count):
                    probe = stack.enter_context(socket.socket())
                    probe.bind((address(i), port))
                    port = probe.getsockname()[1]
            except OSError:
                continue
            return port


class Live:
    """A running cluster and the control node that speaks with its first node."""

    def __init__(self, cluster: Cluster, control: Control, count: int) -> None:
        self.cluster = cluster
        self.control = control
        self.count = count

    def ready(self) -> None:
        """Until every node still wanted is linked and every expert has a holder."""
        become_ready(self.cluster, self.control, self.count, Progress())

    def submit(self, request: Request) -> Drawing:
        """Ask for a picture; returns when the engine has taken it."""
        return Drawing(self.control, request)

    def draw(self, request: Request) -> Result:
        """Ask for a picture and wait for it."""
        return self.submit(request).result()

    def status(self) -> str:
        """What `make status` prints."""
        self.control.ask("status")
        text: str = self.control.answer("text")["text"]
        return text

    def holders(self, num_experts: int) -> dict[int, str]:
        """Expert -> the node that is asked for it, found by asking all."""
        result = self.draw({"prompt": "a", "steps": 1, "top_k": "full"})
        asked = {call["expert"]: call["node"] for call in result["calls"]}
        assert sorted(asked) == list(range(num_experts))
        return asked

    def node(self, name: str) -> Process:
        """The Erlang node of that name as a process."""
        return self.cluster.nodes[index_of(name)]

    def worker(self, name: str, kind: str) -> Process:
        """The expert or pipeline worker of a node as a process."""
        process = self.cluster.worker(index_of(name), kind)
        assert process is not None, f"{name} has no {kind} worker"
        return process


@contextlib.contextmanager
def running(run: Path, launch: Launch, tag: str) -> Iterator[Fleet]:
    """A cluster whose run directory is `run`; nothing of it is left afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "RUN", run)
        patch.setenv(TAG, tag)
        cluster = Cluster(free_port(launch.nodes), mode="test")
        with cluster_of(cluster, launch, Progress()) as fleet:
            yield fleet
    assert leftovers(tag) == []


@contextlib.contextmanager
def live(run: Path, model_dir: Path, count: int, tag: str) -> Iterator[Live]:
    """A cluster of `count` nodes that draw with this model."""
    with running(run, Launch(count, model_dir), tag) as fleet:
        yield Live(fleet.cluster, fleet.control, count)
