"""Models, the single-process reference, and clusters that several tests of a module share."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import baguette
from baguette.families.paris.tiny import build
from baguette.pipeline import Pipeline
from launcher import nodes
from launcher.simulated import Fleet
from live import ROOT, TAG, Live, leftovers, live

# Started in the background we ignore interrupts, and all that we start would; it must hear of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Start = Callable[[Path, int], AbstractContextManager[Live]]
TOLD = 40  # lines of a failed test's nodes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test tells what its clusters' nodes logged of note: their logs go with them."""
    report = yield
    if report.when == "call" and report.failed:
        values = getattr(item, "funcargs", {}).values()
        fleets = [getattr(value, "fleet", value) for value in values]
        for cluster in [f.cluster for f in fleets if isinstance(f, Fleet | Live)]:
            logs = [cluster.log(i) for i in range(len(cluster.nodes)) if cluster.log(i).exists()]
            report.sections.append(("warnings of the nodes", "\n".join(_of_note(logs))))
    return report


def _of_note(logs: list[Path]) -> list[str]:
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
    noted = [line for line in lines if '"level":"warning"' in line or '"level":"error"' in line]
    return sorted(noted)[-TOLD:]


@pytest.fixture(scope="session")
def eight() -> Path:
    """The trained model of eight experts."""
    return ROOT / "weights" / "paris-mini"


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three experts on (3, 6, 6) latents: no eight and no 4x32x32 anywhere."""
    return build(tmp_path_factory.mktemp("models") / "tiny-3", num_experts=3)


@pytest.fixture(scope="session")
def reference_eight(eight: Path) -> Pipeline:
    """The eight-expert model in this process, with the thread count of the workers."""
    return baguette.load(eight, threads=1)


@pytest.fixture(scope="session")
def reference_three(three: Path) -> Pipeline:
    """The three-expert model in this process, with the thread count of the workers."""
    return baguette.load(three, threads=1)


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """A cluster as a context manager: `with start(model_dir, nodes) as cluster`."""

    def begin(model_dir: Path, count: int) -> AbstractContextManager[Live]:
        return live(tmp_path_factory.mktemp("run"), model_dir, count, uuid.uuid4().hex)

    return begin


@pytest.fixture
def own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a cluster that a test starts itself: a run directory, and nothing left afterwards."""
    tag = uuid.uuid4().hex
    monkeypatch.setattr(nodes, "RUN", tmp_path / "run")
    monkeypatch.setenv(TAG, tag)
    yield
    assert leftovers(tag) == []


@pytest.fixture(scope="module")
def cluster_of_eight(start: Start, eight: Path) -> Iterator[Live]:
    """Eight nodes, one expert each; shared by the tests of a module that leave it whole."""
    with start(eight, 8) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster_of_three(start: Start, three: Path) -> Iterator[Live]:
    """Three nodes for the three-expert model, shared as above."""
    with start(three, 3) as cluster:
        yield cluster
