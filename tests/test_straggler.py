"""A node ten times slower than its replica, among simulated devices: what it costs a step."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from launcher import trials_straggler
from launcher.nodes import Launch
from launcher.trials_ground import Ground
from live import running

NODES = trials_straggler.NODES
ENGINE = trials_straggler.DEVICE.settings(NODES)


@pytest.fixture
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Two experts, two holders each."""
    launch = Launch(NODES, None, engine=ENGINE)
    with running(tmp_path_factory.mktemp("run"), launch, uuid.uuid4().hex) as fleet:
        yield Ground(fleet, trials_straggler.REQUEST)


def test_a_straggler_is_asked_besides_then_no_more(
    pairs: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    record = trials_straggler.straggler(pairs)
    with capsys.disabled():
        print(f"\na straggler (simulated devices): {record}")
    assert record["same_pixels"]
    assert record["slow_calls"] >= 1
    assert record["p99_to_p50"] <= 1.5, record
    assert record["extra_share"] <= 0.03, record
    assert record["rescued"] >= 1, record
    assert record["rescued_to_p50"] <= 2.5, record
    assert record["unfinished"] == 0  # the loser was cancelled
