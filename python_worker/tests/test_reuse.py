"""Step reuse: when velocities are used again, and what a drawing with it is and says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import baguette
from baguette.errors import BadInput
from baguette.families.paris.expert import PreparedExpert, Row
from baguette.pipeline import Pipeline
from baguette.reuse import ASKED, drift, relative_changes
from baguette.worker import pipeline_entry
from baguette.worker.payload import pack, unpack
from baguette.worker.tensor import pack_tensor, unpack_tensor
from mini.cached import Swept, safe

moves = st.floats(0, 2, width=32)
thresholds = st.floats(0, 4, width=32)
chosen = st.frozensets(st.integers(0, 2), min_size=1, max_size=2)
ways = st.lists(st.tuples(moves, chosen), min_size=1, max_size=40)
Way = list[tuple[float, frozenset[int]]]


def reused(threshold: float, way: Way) -> list[bool]:
    """Which steps of a picture ask nobody; of the first step only the experts matter."""
    last, found = ASKED, [False]
    for step in range(1, len(way)):
        moved, experts = way[step]
        left = len(way) - 1 - step
        last = drift(threshold, last, moved, way[step - 1][1], experts, steps_left=left)
        found.append(last.reused)
    return found


@given(thresholds, ways)
def test_first_and_last_step_are_always_asked(threshold: float, way: Way) -> None:
    found = reused(threshold, way)
    assert (found[0], found[-1]) == (False, False)


@given(thresholds, ways)
def test_nothing_is_used_again_across_a_change_of_routing(threshold: float, way: Way) -> None:
    found = reused(threshold, way)
    assert not any(found[i] for i in range(1, len(way)) if way[i][1] != way[i - 1][1])


@given(ways)
def test_without_a_threshold_every_step_is_asked(way: Way) -> None:
    assert not any(reused(0.0, way))


@given(thresholds, thresholds, ways)
def test_a_larger_threshold_never_asks_more_often(one: float, other: float, way: Way) -> None:
    small, large = sorted((one, other))
    assert sum(reused(small, way)) <= sum(reused(large, way))


@given(thresholds, ways)
def test_between_two_askings_an_image_moves_less_than_the_threshold(
    threshold: float, way: Way
) -> None:
    change = 0.0
    for (moved, _), again in zip(way, reused(threshold, way), strict=True):
        change = change + moved if again else 0.0
        assert change < threshold or not again


def test_what_is_not_a_number_is_asked() -> None:
    assert drift(9.0, ASKED, float("nan"), {1}, {1}, steps_left=5) == ASKED


def test_the_order_of_the_same_experts_is_no_change_of_routing() -> None:
    assert drift(1.0, ASKED, 0.1, (1, 0), (0, 1), steps_left=5).reused


def test_changes_are_relative_and_by_image() -> None:
    before = torch.tensor([[[1.0, -3.0]], [[2.0, 2.0]]])
    after = torch.tensor([[[2.0, -3.0]], [[2.0, 4.0]]])
    assert relative_changes(before, after) == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize(
    ("right", "largest"), [((97, 97, 96, 96), 0.3), ((97, 95, 97, 97), 0), ((97, 98, 96, 95), 0.2)]
)
def test_the_safe_threshold_is_the_last_before_more_than_a_point_is_lost(
    right: tuple[int, ...], largest: float
) -> None:
    thresholds = (0.0, 0.1, 0.2, 0.3)
    found = [
        Swept(t, right=[True] * n + [False] * (100 - n))
        for t, n in zip(thresholds, right, strict=True)
    ]
    assert safe(found) == largest


@pytest.fixture(scope="module")
def pipeline(tiny_dir: Path) -> Pipeline:
    return baguette.load(tiny_dir)


@pytest.fixture
def asked(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Every row that any expert is asked about, from now on."""
    rows: list[Row] = []
    together = PreparedExpert.together

    def noting(self: PreparedExpert, batch: Sequence[Row]) -> Callable[[], Tensor]:
        rows.extend(batch)
        return together(self, batch)

    monkeypatch.setattr(PreparedExpert, "together", noting)
    return rows


class TestDrawing:
    """The single process with a threshold."""

    def test_a_threshold_too_small_for_any_step_changes_nothing(self, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", n=3, steps=5, deterministic=False)
        off, on = pipeline(request), pipeline(replace(request, cache=1e-12))
        assert all(map(torch.equal, off.latents, on.latents))
        assert on.saved() == [0, 0, 0]

    def test_calls_are_saved_and_counted(self, pipeline: Pipeline, asked: list[Row]) -> None:
        # Every expert is chosen at every step, so that no change of routing is in the way.
        request = pipeline.request("a tiny test", n=2, steps=6, top_k=None, cache=10.0)
        done = pipeline(request)
        assert done.reused == [[False, True, True, True, True, False]] * 2
        assert done.saved() == [12, 12]
        assert len(asked) == 2 * 6 * 3 - 24
        record = done.to_json()
        assert (record["cache"], [i["reused"] for i in record["images"]]) == (10.0, [12, 12])
        assert [line.get("reused", False) for line in record["routing"][0]] == done.reused[0]

    def test_a_velocity_used_again_is_the_last_one(
        self, pipeline: Pipeline, asked: list[Row]
    ) -> None:
        request = pipeline.request("a tiny test", n=1, steps=3, top_k=1, cache=10.0)
        line = {"experts": [1], "weights": [1.0], "margin": 1.0}
        assert pipeline(request, replay=[[line] * 3]).reused == [[False, True, False]]
        first, last = asked
        velocity = pipeline.ensemble.experts[1].velocity([first])[0]
        straight = first.latent + (last.t - first.t) * velocity
        assert torch.allclose(last.latent, straight, rtol=1e-5, atol=1e-5)

    def test_images_drift_by_themselves(self, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", n=4, steps=12, top_k=1, cache=5.0)
        together = pipeline(request)
        assert len(set(map(tuple, together.reused))) > 1
        for i in range(4):
            alone = pipeline(replace(request, n=1, seed=request.seed + i))
            assert alone.reused[0] == together.reused[i]
            assert torch.allclose(alone.latents[0], together.latents[i], rtol=1e-4, atol=1e-4)

    def test_a_threshold_is_not_deterministic(self, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", cache=0.1)
        assert not request.deterministic
        with pytest.raises(BadInput, match="cache and deterministic exclude each other"):
            pipeline(replace(request, deterministic=True))

    @pytest.mark.parametrize("cache", [-0.1, 10.5, float("nan"), float("inf")])
    def test_a_bad_threshold_is_named(self, pipeline: Pipeline, cache: float) -> None:
        with pytest.raises(BadInput, match=r"cache got .* but expected 0.0\.\.10.0"):
            pipeline(pipeline.request("a tiny test", cache=cache))


class TestWorker:
    """The pipeline worker decides as one process does, from what each call brings."""

    STEPS, CACHE = 12, 5.0

    @pytest.fixture
    def loaded(self, tiny_dir: Path) -> None:
        pipeline_entry.load(pack({"model_dir": str(tiny_dir), "threads": 1}))

    def drawn(self, pipeline: Pipeline, cache: float) -> list[list[bool]]:
        """Which steps of three images asked nobody, drawn by the worker's own calls."""
        request = {"steps": self.STEPS, "top_k": 1, "canonical": False}
        prompts = pipeline.requester.prompts(pipeline.request("a tiny test"))
        answer = unpack(pipeline_entry.start(pack({**request, "seeds": [999, 1000, 1001]})))
        velocities: list[dict[int, bytes]] = [{}, {}, {}]
        found: list[list[bool]] = [[], [], []]
        for step in range(self.STEPS):
            given = []
            for i, image in enumerate(answer["images"]):
                found[i].append("change" in image)
                if "change" not in image:
                    latent = unpack_tensor(image["latent"], 3)
                    row = pipeline.requester.row(latent, answer["t"], prompts, 7.5)
                    velocities[i] = {}
                    for number in image["experts"]:
                        expert = pipeline.ensemble.experts[number]
                        expert.learn_missing([row], prompts)
                        velocities[i][number] = pack_tensor(expert.velocity([row])[0])
                pairs = [list(pair) for pair in velocities[i].items()]
                given.append({"change": 0.0, **image, "velocities": pairs})
            call = {**request, "step": step, "cache": cache, "images": given}
            answer = unpack(pipeline_entry.advance(pack(call)))
        return found

    def test_it_decides_as_one_process_does(self, pipeline: Pipeline, loaded: None) -> None:
        request = pipeline.request(
            "a tiny test", n=3, steps=self.STEPS, top_k=1, guidance_scale=7.5, cache=self.CACHE
        )
        found = self.drawn(pipeline, self.CACHE)
        assert found == pipeline(request).reused
        assert any(map(any, found))

    def test_without_a_threshold_it_says_nothing(self, pipeline: Pipeline, loaded: None) -> None:
        assert not any(map(any, self.drawn(pipeline, 0.0)))
