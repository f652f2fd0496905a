"""`make bench-step` measures all sides and agrees on the picture; how reliability is counted."""

from __future__ import annotations

import itertools
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import bench
import bench_http
import bench_prediction
import bench_reliability
import bench_throughput
import pytest

from launcher import breakdown, loads, nodes, plots, throughput_links
from launcher.breakdown import FRAMES, PORT, PYTHON, TORCH
from launcher.loads import Order
from launcher.options import Options
from launcher.processes import Refused
from launcher.spreads import percentile, shown, spread
from launcher.trials_ground import asked_instead, since, step_end_us
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
    printed = capsys.readouterr().out
    assert f"{record['cluster_step_ratio']:.2f}" in printed
    assert leftovers(tag) == []

    broken = record["breakdown"]
    assert broken["steps_drawn"] == 4 * breakdown.PICTURES
    parts = [us for kinds in broken["parts_us"].values() for us in kinds.values()]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(broken["us_per_step"], abs=0.1 * len(parts))
    for where, kind in itertools.product(("expert call", "advance"), (TORCH, PYTHON, FRAMES, PORT)):
        assert broken["parts_us"][where][kind] > 0
    assert "us of a step" in printed

    assert list(plots.of(record)) == ["step"]

    promised, half = record["bytes_per_step"].values()
    assert promised["least_bytes"] == 2 * half["least_bytes"] > 0
    assert 1 < promised["of_the_least"] < half["of_the_least"]


def test_a_row_counts_what_was_lost_and_what_changed() -> None:
    good = {"lost": False, "same_pixels": True, "extra_calls": 1, "detected_ms": 10.0}
    records = [{**good, "detected_ms": float(ms)} for ms in range(1, 21)]
    records += [{**good, "same_pixels": False}, {"lost": True, "why": "it failed"}]
    row = bench_reliability.row("a fault", records)
    assert row == "| a fault | 22 | 10 / 19 / 20 (21 of 22) | - | 1 | 1 | 21 |"


def test_only_what_follows_the_harm_counts_as_asking_somebody_else() -> None:
    before = {"from": "a", "at_us": 1000.0, "step": 0}
    after = {"from": "a", "at_us": 3000.0, "step": 1}
    other = {"from": "b", "at_us": 2500.0, "step": 1}
    result = {"began_us": 5e6, "failovers": [after, other], "hedges": [before]}
    assert asked_instead(5.002, result, "a") == after
    assert since(5.002, result, 3000.0) == 1.0
    assert asked_instead(5.004, result, "a") is None


def test_a_step_ends_with_its_last_answer() -> None:
    calls = [
        {"step": 0, "at_us": 100.0, "ms": 5.0},
        {"step": 0, "at_us": 4000.0, "ms": 2.0},
        {"step": 1, "at_us": 9000.0, "ms": 1.0},
    ]
    assert step_end_us({"calls": calls}, 0) == 6000.0


def test_http_is_measured_with_wrk_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["bench_http.py", "--small"])
    assert bench_http.main() == 1
    assert capfd.readouterr().err == (
        "wrk is not installed: `sudo apt-get install wrk`, then run this again\n"
    )


def test_memory_is_judged_by_the_second_half_of_the_jobs() -> None:
    wrk = {"requests_per_second": 100.4, "p99_ms": 2.34, "refused": 0, "broken": 0}
    record = {
        "requests": {"/healthz": wrk, "POST /v1/jobs": {**wrk, "refused": 3}},
        "memory": {"jobs": 4, "mib_after_wave": [9.0, 20.0, 20.5, 20.0], "grown_mib": -0.5},
        "rude": {
            "clients": 6,
            "p99_ms_before": 1.0,
            "p99_ms_during": 1.5,
            "descriptors": [20, 26, 20],
            "seconds_to_give_back": 0.4,
        },
        "watchers": {
            "watchers": 9,
            "image_seconds_alone": 0.5,
            "image_seconds_watched": 0.52,
            "ratio": 1.04,
        },
        "previews": {
            "image_seconds_alone": 0.5,
            "image_seconds_previewed": 0.5051,
            "ratio": 1.0102,
        },
    }
    assert bench_http.markdown(bench_http.rows(record)).splitlines()[2:] == [
        "| /healthz, 64 connections | 100 requests/s, p99 2.3 ms |",
        "| POST /v1/jobs, 64 connections | 100 requests/s, p99 2.3 ms, 3 refused |",
        "| a picture of 250 steps with 9 watchers, and without | 0.52 s, 0.50 s: ratio 1.04 |",
        "| a picture of 60 steps with previews for one watcher, and without "
        "| 0.505 s, 0.500 s: ratio 1.010 |",
        "| growth of the node over the second half of 4 jobs | -0.5 MiB (at the end 20) |",
        "| /healthz beside 6 slow and vanishing clients, and without, p99 | 1.5 ms, 1.0 ms |",
        "| open files of the node before, beside and after those clients "
        "| 20 / 26 / 20, given back in 0.4 s |",
    ]
    assert bench_http.grown([9.0, 20.0, 20.5, 20.0]) == -0.5


def test_many_pictures_are_measured_section_by_section(
    tag: str, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"MODEL": str(three), "PORT": str(free_port(8))}
    record = bench_throughput.bench(Options.read(given), list(bench_throughput.SECTIONS), True)
    assert leftovers(tag) == []
    printed = capsys.readouterr().out
    assert all(f"--- {name}" in printed for name in bench_throughput.SECTIONS)

    at_once = record["concurrent"]["images_per_second"]
    assert list(at_once) == ["1", "4"]
    assert all(side["median"] > 0 for sides in at_once.values() for side in sides.values())
    for sides in record["concurrent"]["cpu_ms_per_image_step"].values():
        assert all(sum(each.values()) > 0 for each in sides.values())

    (row,) = record["scaling"]["simulated"]
    assert 0 < row["loaded"]["least_busy_device"] <= row["loaded"]["share_of_ideal"] < 1.2
    assert row["loaded"]["cpu_ms_per_image"] > 0

    own, lockstep = (row["images_per_second"] for row in record["lockstep"]["rows"])
    # The same number of images for both; devices take most of the time.
    assert 0.2 < lockstep["median"] / own["median"] < 5

    links = {row["rtt_ms"]: row for row in record["links"]["rows"]}
    # Nobody is faster than the floor, but for what a simulated device rounds.
    assert all(row["ratio"]["least"] > 0.95 for row in links.values())
    trips = links[10]["steps_with_a_round_trip"] * throughput_links.SMALL.steps
    longer = links[10]["image_seconds"]["median"] - links[0]["image_seconds"]["least"]
    assert trips > 0
    assert longer > 0.5 * trips * 0.010

    sides = {(row["side"], row["replicas"]): row for row in record["peers"]["rows"]}
    assert len(sides) == 5
    assert all(row["images_per_second"]["median"] > 0 for row in sides.values())

    killed = record["failover"]
    assert (killed["lost"], killed["seeds_with_different_pictures"]) == (0, 0)
    assert killed["images"] >= killed["concurrent"]
    assert killed["image_seconds"]["hit"]["images"] > 0
    assert len(plots.of(record)) == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "links,lunch"], "--only got 'lunch' but expected some of concurrent,"),
        (["--nodes", "8", "7"], "--nodes got [8, 7] but expected some of [2, 4, 8, 16, 64]"),
    ],
)
def test_what_does_not_exist_is_named(
    given: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["bench_throughput.py", *given])
    assert bench_throughput.main() == 2
    assert capfd.readouterr().err.startswith(said)


def test_an_order_is_shared_out_among_those_who_ask() -> None:
    request = {"prompt": "a"}

    def parts(order: Order, nodes: int) -> list[tuple[int, int]]:
        found = [order.of(index, nodes) for index in range(nodes)]
        return [(part["concurrent"], part["images"]) for part in found if part is not None]

    assert parts(Order(request, 6, 17), 4) == [(2, 5), (2, 4), (1, 4), (1, 4)]
    assert parts(Order(request, 1, 16), 4) == [(1, 16)]


def test_what_is_read_from_pictures() -> None:
    steps = [[0, 9_000, 4_000, 8_000], [10_000, 19_500, 9_000, 0]]
    picture = {
        "ok": True, "seed": 1, "pixels_sha256": "a", "calls": 5, "steps": steps,
        "asked_us": 1e6, "began_us": 2e6, "ended_us": 3e6,
    }  # fmt: skip
    assert loads.step_ms(picture) == [(10.0, 8.0)]
    assert loads.steps_between([picture], 2.0, 2.01) == 1
    assert loads.extra_share([picture], 2) == pytest.approx(1 / 5)
    assert loads.seconds(picture) == 2.0
    assert loads.different([picture, {**picture, "pixels_sha256": "b"}]) == 1
    with pytest.raises(Refused, match="of the same seed differ"):
        loads.check([picture, {**picture, "pixels_sha256": "b"}])
    with pytest.raises(Refused, match="a picture was lost: gone"):
        loads.check([{"ok": False, "why": {"sentence": "gone"}}])


def test_a_spread_and_a_percentile() -> None:
    assert percentile([5, 1, 4, 2, 3], 50) == 3
    assert percentile(range(1, 101), 99) == 99
    assert percentile([7.0], 99) == 7.0
    assert shown(spread([2.0, 1.0, 3.0])) == "2 (1 to 3)"
    assert shown(spread([2.0])) == "2"


def test_what_was_foretold_is_judged_by_all_pictures_and_by_kinds() -> None:
    kinds = [(1, False, True, 0.1), (4, True, False, 0.2), (4, True, True, 0.6)]
    drawn = [
        {"at_once": count, "spread": spread, "deterministic": alone, "error": error}
        for count, spread, alone, error in kinds
    ]
    assert bench_prediction.table("simulated", drawn) == [
        "| simulated devices | pictures | median error | p90 |",
        "|---|---|---|---|",
        "| all | 3 | 20.0% | 60.0% |",
        "| 1 at once, of one node | 1 | 10.0% | 10.0% |",
        "| 4 at once, of several nodes | 2 | 40.0% | 60.0% |",
        "| deterministic | 2 | 35.0% | 60.0% |",
        "| not deterministic | 1 | 20.0% | 20.0% |",
    ]
