"""Nodes with a simulated device: a whole cluster without Python and without a model."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Iterator

import bench_cluster
import pytest

import live
from launcher.comings import comings
from launcher.nodes import Launch, node_name
from launcher.processes import Process, Refused
from launcher.progress import Progress
from launcher.simulated import Device, Fleet, fleet

NODES = 4
STEPS = 12
REQUEST = {"prompt": "a", "steps": STEPS, "seed": 5, "n": 2}
DEVICE = Device(batch_us=3000, row_us=1000, load_ms=20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four simulated nodes; every test leaves them as they were."""
    launch = Launch(NODES, None, engine=DEVICE.settings(NODES))
    with live.running(tmp_path_factory.mktemp("run"), launch, uuid.uuid4().hex) as four:
        yield four


def draw(running: Fleet, **more: object) -> live.Result:
    """Ask the first node for a picture and wait for it."""
    running.control.ask("generate", request={**REQUEST, **more}, watch=False)
    result: live.Result = running.control.answer("done")["result"]
    return result


def programs(node: Process) -> list[str]:
    """What a node has started."""
    return [os.path.basename(os.readlink(f"/proc/{p.pid}/exe")) for p in node.descendants()]


def test_it_draws_without_a_python_process(running: Fleet) -> None:
    result = draw(running)
    assert result["simulated"] is True
    assert len(result["calls"]) >= 2 * STEPS
    assert len({call["node"] for call in result["calls"]}) > 1
    assert all(key.startswith("simulated") for key in result["keys"].values())
    for image in result["images"]:
        assert base64.b64decode(image["png"]).startswith(b"\x89PNG")
    for node in running.cluster.nodes:
        assert not [program for program in programs(node) if "python" in program]


def test_nobody_takes_it_for_real(running: Fleet) -> None:
    running.control.ask("status")
    text = running.control.answer("text")["text"]
    assert "Model simulated-model" in text
    assert text.count("none: simulated device") == 2


def test_a_picture_is_a_function_of_its_request(running: Fleet) -> None:
    def pixels(result: live.Result) -> list[str]:
        return [image["pixels_sha256"] for image in result["images"]]

    assert pixels(draw(running)) == pixels(draw(running)) != pixels(draw(running, seed=6))


def test_a_straggler_is_slow_from_its_next_call_on(running: Fleet) -> None:
    def compute_ms(result: live.Result, name: str) -> set[float]:
        return {call["compute_ms"] for call in result["calls"] if call["node"] == name}

    request = {"n": 1, "top_k": "full"}  # so that everybody is asked
    running.simulate(1, speed=0.1)
    slow = draw(running, **request)
    running.simulate(1, speed=1)
    assert compute_ms(slow, node_name(1)) == {40.0}
    assert compute_ms(slow, node_name(2)) == {4.0}
    assert compute_ms(draw(running, **request), node_name(1)) == {4.0}


def test_what_a_device_cannot_be_is_refused_in_a_sentence(running: Fleet) -> None:
    with pytest.raises(Refused, match=r"device .*speed is 0\.001\.\.1000"):
        running.simulate(1, speed=0)
    with pytest.raises(Refused, match="no such option"):
        running.simulate(1, colour="red")


@pytest.mark.usefixtures("own_run")
def test_the_bench_measures_what_a_cluster_costs() -> None:
    three = bench_cluster.measured(live.free_port(3), 3, Device(), 2.0, Progress())
    assert three["start"]["loads"] >= Device().experts
    assert three["rest"]["wire_bytes"]["median"] > 0
    assert three["leave"]["loads"] >= 1  # its experts had no other holder
    assert three["join"]["newcomer_loads"] <= 1
    for part in ("start", "rest", "leave", "join"):
        assert three[part]["void"] is (three[part]["machine_busy_percent"] > 80)


@pytest.mark.usefixtures("own_run")
def test_who_comes_and_goes_is_noticed_in_time() -> None:
    with fleet(live.free_port(3), 3, Device(), Progress()) as running:
        found = comings(running, 3, 2, 1, lambda text: None)
    assert found["seconds_to_see_all"]["most"] - found["of_these_to_boot"]["most"] < 2.0
    assert found["seconds_until_gone_everywhere"]["most"] < 15.0
