"""Plots of what was measured: one for each part, the same bytes each time, nothing made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import plots as program
import pytest

from launcher import plots
from launcher.breakdown import KINDS, WHERE
from launcher.throughput_concurrent import ALONE, JOINED, PROCESS, REQUEST, TOGETHER

Record = dict[str, Any]


def spread(median: float) -> dict[str, float]:
    return {"median": median, "least": 0.9 * median, "most": 1.1 * median}


def row(nodes: int, skew: float, share: float, void: bool = False) -> Record:
    loaded = {"share_of_ideal": share, "void": void}
    return {"nodes": nodes, "skew": skew, "dilation": 16, "loaded": loaded}


@pytest.fixture
def record() -> Record:
    """Figures that nobody measured."""
    sides = {JOINED: 9.0, ALONE: 7.0, f"{PROCESS}, 1 thread": 5.0, f"{PROCESS}, 2 threads": 6.0}
    sides |= {REQUEST: 13.0, f"{TOGETHER}, 1 thread": 12.0, f"{TOGETHER}, 2 threads": 11.0}
    both = {name: spread(median) for name, median in sides.items()}
    return {
        "small": False,
        "breakdown": {"parts_us": {where: dict.fromkeys(KINDS, 100.0) for where in WHERE}},
        "concurrent": {"images_per_second": {"1": both, "4": both}, "model": "m", "nodes": 8},
        "scaling": {"simulated": [row(8, 0, 0.9), row(2, 0, 0.97), row(8, 0.5, 0.7, void=True)]},
        "links": {
            "direct": {"ratio": spread(1.01)},
            "rows": [{"rtt_ms": ms, "ratio": spread(1.02)} for ms in (0, 45)],
        },
        "failover": {
            "steps_per_second_before": [10.0, 12.0],
            "steps_per_second_after": [2.0, 6.0],
            "usual": 11.0,
            "concurrent": 16,
            "lost": 0,
        },
    }


def test_every_part_is_drawn_in_the_same_bytes_each_time(record: Record, tmp_path: Path) -> None:
    written = plots.write(plots.of(record), tmp_path / "first")
    assert [path.stem for path in written] == [
        "step",
        *(f"throughput-{part}" for part in ("concurrent", "scaling", "links", "failover")),
    ]
    for path in written:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for again in plots.write(plots.of(record), tmp_path / "second"):
        assert again.read_bytes() == (tmp_path / "first" / again.name).read_bytes()


def test_only_what_was_measured_is_drawn(record: Record) -> None:
    assert list(plots.of({"links": record["links"], "load_before": 0.1})) == ["throughput-links"]


def test_pictures_at_once_are_held_against_the_best_single_process(record: Record) -> None:
    (axes,) = plots.of(record)["throughput-concurrent"].axes
    drawn = [list(bars[0].get_ydata()) for bars in axes.containers]
    assert drawn == [[9, 9], [7, 7], [13, 13], [6, 6], [12, 12]]


def test_nodes_are_in_order_and_what_is_void_is_hollow(record: Record) -> None:
    (axes,) = plots.of(record)["throughput-scaling"].axes
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [float(line.get_ydata()[0]) for line in points] == pytest.approx([97, 90, 70])
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, False, True]
    assert any("void" in text.get_text() for text in axes.texts)


def test_a_record_that_is_none_is_refused(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "bench_throughput.json"
    with pytest.raises(program.BadOption, match="cannot be read"):
        program.draw([path], tmp_path)
    path.write_text(json.dumps({**record, "small": True}))
    with pytest.raises(program.BadOption, match="without --small"):
        program.draw([path], tmp_path)
    path.write_text(json.dumps(record))
    assert program.draw([path], tmp_path) == 0
    assert (tmp_path / "step.svg").exists()
