"""Three experts on three nodes: other sizes, and a whole machine that dies in the middle."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agreement import reference, same
from baguette.pipeline import Pipeline
from conftest import Start
from launcher.nodes import node_name
from live import Live

STEPS = 8


@pytest.mark.parametrize("options", [{}, {"n": 2, "seed": 8}, {"top_k": 1}, {"top_k": "full"}])
def test_no_size_is_built_in(
    cluster_of_three: Live, reference_three: Pipeline, options: dict[str, object]
) -> None:
    request = {"prompt": "any words at all", "steps": 5, **options}
    same(cluster_of_three.draw(request), reference(reference_three, request))


def test_each_of_three_nodes_holds_one(cluster_of_three: Live) -> None:
    asked = cluster_of_three.holders(3)
    assert len(set(asked.values())) == 3, asked


def test_a_node_killed_at_its_call_is_replaced(
    start: Start, three: Path, reference_three: Pipeline
) -> None:
    request = {"prompt": "any words at all", "steps": STEPS, "top_k": "full"}
    expected = reference(reference_three, request)
    with start(three, 3) as cluster:
        asked = cluster.holders(3)
        expert, name = next((e, n) for e, n in asked.items() if n != node_name(0))
        node, worker = cluster.node(name), cluster.worker(name, "expert")
        worker.signal(signal.SIGSTOP)
        drawing = cluster.submit(request)
        drawing.asked(expert, name)
        node.signal(signal.SIGKILL)
        result = drawing.result()
        same(result, expected)
        assert (result["failovers"][0]["expert"], result["failovers"][0]["from"]) == (expert, name)
        late = {call["node"] for call in result["calls"] if call["expert"] == expert}
        assert late
        assert name not in late
        assert not worker.alive()
