"""Workers that compute at the same moment compute on different cores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from baguette.worker import cores
from baguette.worker.cores import Cores

ALL = os.sched_getaffinity(0)

HOLDER = """
import os, sys
from baguette.worker.cores import Cores
with Cores(sys.argv[1]).one():
    print(*os.sched_getaffinity(0), flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """A process that computes until its standard input closes, and the cores it may use."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, {int(core) for core in process.stdout.readline().split()}


@pytest.mark.parametrize("taken", range(len(ALL) + 1))
def test_a_free_core_is_taken_alone_and_with_none_free_all_stay(tmp_path: Path, taken: int) -> None:
    others = [holder(tmp_path / "cores") for _ in range(taken)]
    try:
        held = [cores for _, cores in others]
        assert all(len(cores) == 1 for cores in held)
        assert len(set.union(set(), *held)) == taken
        with Cores(str(tmp_path / "cores")).one():
            mine = os.sched_getaffinity(0)
        assert (
            mine == ALL
            if taken == len(ALL)
            else len(mine) == 1 and not mine & set.union(set(), *held)
        )
        assert os.sched_getaffinity(0) == ALL
    finally:
        for process, _ in others:
            process.communicate()


def test_a_killed_worker_leaves_its_core(tmp_path: Path) -> None:
    others = [holder(tmp_path / "cores")[0] for _ in ALL]
    others[0].kill()
    others[0].communicate()
    try:
        with Cores(str(tmp_path / "cores")).one():
            assert len(os.sched_getaffinity(0)) == 1
    finally:
        for process in others[1:]:
            process.communicate()


def until_it_waits(thread: threading.Thread) -> None:
    """Until the kernel says that the thread waits for a futex, not for Python."""
    syscall = Path(f"/proc/self/task/{thread.native_id}/syscall")
    until = time.monotonic() + 10
    while syscall.read_text().split()[0] != str(cores._FUTEX) or not thread.is_alive():
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)


def test_who_waits_is_told_when_a_core_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = 20.0
    monkeypatch.setattr(cores, "PATIENCE_S", patience)
    others = [holder(tmp_path / "cores")[0] for _ in ALL]
    held: list[set[int]] = []

    used: list[float] = []

    def compute() -> None:
        began = time.thread_time()
        with Cores(str(tmp_path / "cores")).one():
            held.append(os.sched_getaffinity(0))
            used.append(time.thread_time() - began)

    began = time.monotonic()
    thread = threading.Thread(target=compute)
    thread.start()
    try:
        until_it_waits(thread)
        others[0].communicate()  # leaves its core
        thread.join()
        assert len(held[0]) == 1
        assert time.monotonic() - began < patience / 2
        assert used[0] < 0.1
    finally:
        for process in others[1:]:
            process.communicate()


LAYERS = """
import os
from torch import nn, ones
from baguette.worker.cores import give_way_before
given = []
os.sched_yield = lambda: given.append(len(computed))
layers, computed = [nn.Linear(4, 4) for _ in range(3)], []
for layer in layers:
    layer.register_forward_hook(lambda *_: computed.append(layer))
give_way_before(layers[1:])
nn.Sequential(*layers)(ones(1, 4))
print(*given)
"""


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_gives_way_before_a_layer_where_cores_are_shared(
    tmp_path: Path, shared: bool
) -> None:
    environment = dict(os.environ)
    environment.pop(cores.SETTING, None)
    if shared:
        environment[cores.SETTING] = str(tmp_path / "cores")
    computing = [sys.executable, "-c", LAYERS]
    told = subprocess.run(
        computing, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.split() == (["1", "2"] if shared else [])
