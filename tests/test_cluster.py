"""Eight nodes against the single-process pipeline: the same bytes, also when a worker dies."""

from __future__ import annotations

import signal

import pytest

from agreement import differences, first_asked, reference, same, undisturbed
from baguette.pipeline import Pipeline
from launcher.processes import Refused
from live import Live

PROMPT = "a red circle on a blue background"
STEPS = 12


@pytest.fixture
def cluster(cluster_of_eight: Live) -> Live:
    cluster_of_eight.ready()
    return cluster_of_eight


def test_one_expert_a_node_where_there_are_nodes_enough(cluster: Live) -> None:
    asked = cluster.holders(8)
    assert len(set(asked.values())) == 8, asked


def test_latents_and_pixels_are_the_references(cluster: Live, reference_eight: Pipeline) -> None:
    request = {"prompt": PROMPT, "steps": STEPS, "n": 2, "seed": 5}
    result = cluster.draw(request)
    same(result, reference(reference_eight, request))
    assert result["deterministic"] is True
    assert result["failovers"] == []


@pytest.mark.parametrize(
    "options",
    [{"top_k": 1, "steps": 1}, {"top_k": "full", "steps": 4}, {"negative_prompt": "a star"}],
)
def test_every_option_is_the_references(
    cluster: Live, reference_eight: Pipeline, options: dict[str, object]
) -> None:
    request = {"prompt": PROMPT, "steps": 6, "guidance_scale": 3.5, "seed": 11, **options}
    same(cluster.draw(request), reference(reference_eight, request))


def test_a_worker_killed_at_its_call_changes_no_pixel(
    cluster: Live, reference_eight: Pipeline
) -> None:
    request = {"prompt": PROMPT, "steps": STEPS, "seed": 3}
    expected = reference(reference_eight, request)
    step, expert = first_asked(expected, STEPS // 3)
    node = cluster.holders(8)[expert]
    worker = cluster.worker(node, "expert")
    worker.signal(signal.SIGSTOP)
    drawing = cluster.submit(request)
    assert drawing.asked(expert, node)["step"] == step + 1
    worker.signal(signal.SIGKILL)
    result = drawing.result()
    same(result, expected)
    assert [(f["expert"], f["step"], f["from"]) for f in result["failovers"]][:1] == [
        (expert, step, node)
    ]
    assert any(event["event"] == "failover" for event in drawing.seen)
    assert not worker.alive()


def test_a_cancelled_generation_ends_and_the_next_one_is_right(
    cluster: Live, reference_eight: Pipeline
) -> None:
    request = {"prompt": PROMPT, "steps": STEPS, "seed": 4}
    expected = reference(reference_eight, request)
    _, expert = first_asked(expected, STEPS // 3)
    node = cluster.holders(8)[expert]
    worker = cluster.worker(node, "expert")
    worker.signal(signal.SIGSTOP)
    try:
        drawing = cluster.submit(request)
        drawing.asked(expert, node)
        cluster.control.ask("cancel", id=drawing.id)
        with pytest.raises(Refused, match="cancelled"):
            drawing.result()
    finally:
        worker.signal(signal.SIGCONT)
    assert "cancelled" in cluster.status()
    same(cluster.draw(request), expected)


def test_velocities_used_again_are_those_of_one_process(
    cluster: Live, reference_eight: Pipeline
) -> None:
    request = {"prompt": PROMPT, "steps": STEPS, "n": 3, "seed": 8, "cache": 0.5}
    result = cluster.draw(request)
    alone = undisturbed(reference_eight, request, result["routing"])
    reused = [[step.get("reused", False) for step in image] for image in result["routing"]]
    assert reused == alone.reused
    assert [image["reused"] for image in result["images"]] == alone.saved()
    assert min(alone.saved()) > 0
    assert max(differences(result, alone)) <= 1
    # One call an expert and step for all images that ask it.
    asked = {
        (step, expert)
        for image, again in zip(result["routing"], reused, strict=True)
        for step, line in enumerate(image)
        if not again[step]
        for expert in line["experts"]
    }
    assert {(call["step"], call["expert"]) for call in result["calls"]} == asked
    assert result["asked"] == len(asked)


def test_an_unknown_word_is_told_in_one_line(cluster: Live) -> None:
    drawing = cluster.submit({"prompt": "a photograph of a cat", "steps": 1})
    result = drawing.result()
    told = [event["text"] for event in drawing.seen if event["event"] == "warning"]
    assert told == result["warnings"]
    assert len(told) == 1
    assert "\n" not in told[0]
    assert told[0].startswith("paris-mini draws only shapes")
    assert told[0].endswith("for real pictures: make weights")
    assert cluster.draw({"prompt": PROMPT, "steps": 1})["warnings"] == []


def test_reuse_of_certain_bytes_is_refused(cluster: Live) -> None:
    with pytest.raises(Refused, match=r"cache .* deterministic"):
        cluster.submit({"prompt": PROMPT, "cache": 0.2, "deterministic": True})


def test_a_request_out_of_range_is_refused_by_name(cluster: Live) -> None:
    with pytest.raises(Refused, match="top_k"):
        cluster.submit({"prompt": PROMPT, "top_k": 9})
