"""`make bench`: measures all sides, agrees on the picture, and writes what it prints."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import bench
import pytest

from launcher import nodes
from launcher.options import Options
from launcher.waiting import SIGNALS
from live import TAG, free_port, leftovers

CLUSTER = "cluster"


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A run directory and a tag of our own; the signals as they were."""
    monkeypatch.setattr(nodes, "RUN", tmp_path / "run")
    tag = uuid.uuid4().hex
    monkeypatch.setenv(TAG, tag)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield tag
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_record_holds_every_sample_and_the_picture(
    tag: str, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"MODEL": str(three), "PORT": str(free_port(3)), "STEPS": "4"}
    assert bench.bench(Options.read(given), 5, tmp_path / "bench.json") == 0
    record = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    medians = {}
    for name, side in record["sides"].items():
        assert len(side["samples_ms_per_step"]) == 5
        medians[name] = median(side["samples_ms_per_step"])
        assert side["ms_per_step"] == pytest.approx(medians[name], abs=1e-3)
    fastest = min(value for name, value in medians.items() if name != CLUSTER)
    assert record["cluster_step_ratio"] == pytest.approx(medians[CLUSTER] / fastest, rel=0.05)
    assert (record["steps"], record["nodes"], len(record["routing"][0])) == (4, 3, 4)
    assert len(record["pixels_sha256"]) == 64
    assert {"cpu", "cores", "load_before", "torch"} <= record["machine"].keys()
    assert f"{record['cluster_step_ratio']:.2f}" in capsys.readouterr().out
    assert leftovers(tag) == []
