"""Three experts on three nodes: no size is built in."""

from __future__ import annotations

import pytest

from agreement import reference, same
from baguette.pipeline import Pipeline
from live import Live


@pytest.mark.parametrize("options", [{}, {"n": 2, "seed": 8}, {"top_k": 1}, {"top_k": "full"}])
def test_no_size_is_built_in(
    cluster_of_three: Live, reference_three: Pipeline, options: dict[str, object]
) -> None:
    request = {"prompt": "any words at all", "steps": 5, **options}
    same(cluster_of_three.draw(request), reference(reference_three, request))


def test_each_of_three_nodes_holds_one(cluster_of_three: Live) -> None:
    asked = cluster_of_three.holders(3)
    assert len(set(asked.values())) == 3, asked
