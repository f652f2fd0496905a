"""Schedule, choice of experts, mixing and noise: pure functions, mostly as properties."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baguette.finite import all_finite
from baguette.mixture import Choice, choose, mix
from baguette.noise import initial_noise
from baguette.schedule import network_time, time_grid

logit_lists = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=16)


@given(st.integers(1, 250), st.sampled_from(["flow_match", "linspace"]))
def test_every_grid_falls_from_one_to_zero(steps: int, grid: str) -> None:
    times = time_grid(steps, grid)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(times))


def test_both_time_scales() -> None:
    assert network_time(0.5, "1000*sigma") == 500.0
    assert network_time(0.5, "round(999*t)") == 500.0
    assert network_time(0.2344, "round(999*t)") == 234.0


@given(logit_lists, st.data())
def test_chosen_weights_sum_to_one_and_fall(logits: list[float], data: st.DataObject) -> None:
    top_k = data.draw(st.none() | st.integers(1, len(logits)))
    choice = choose(torch.tensor(logits), top_k)
    assert len(choice.experts) == (top_k or len(logits))
    assert sum(choice.weights) == pytest.approx(1.0, abs=1e-5)
    assert list(choice.weights) == sorted(choice.weights, reverse=True)
    assert choice.margin >= 0


def test_a_tie_goes_to_the_lower_expert() -> None:
    assert choose(torch.tensor([1.0, 2.0, 2.0, 2.0]), 2).experts == (1, 2)


def test_more_experts_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 1\.\.3"):
        choose(torch.zeros(3), 4)


@given(st.permutations(range(6)), st.integers(0, 2**31))
def test_the_sum_does_not_depend_on_the_order_of_answers(order: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    velocities = {e: torch.randn(2, 3, 3, generator=generator) for e in range(6)}
    weights = torch.softmax(torch.randn(6, generator=generator), 0).tolist()
    choice = Choice(tuple(range(6)), tuple(weights), 0.0)
    shuffled = {e: velocities[e] for e in order}
    assert torch.equal(mix(velocities, choice), mix(shuffled, choice))


def test_a_missing_answer_is_an_error_not_a_smaller_sum() -> None:
    with pytest.raises(ValueError, match="expected"):
        mix({0: torch.zeros(1)}, Choice((0, 1), (0.5, 0.5), 0.1))


def test_noise_is_a_function_of_its_seed_alone() -> None:
    assert torch.equal(initial_noise(7, (3, 6, 6)), initial_noise(7, (3, 6, 6)))
    assert not torch.equal(initial_noise(7, (3, 6, 6)), initial_noise(8, (3, 6, 6)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@given(numbers=st.lists(st.floats(width=16), min_size=1, max_size=9))
def test_one_number_that_is_none_is_found(numbers: list[float], dtype: torch.dtype) -> None:
    values = torch.tensor(numbers, dtype=dtype)
    assert all_finite(values) is all(math.isfinite(number) for number in numbers)


def test_a_sum_that_overflows_is_no_number_that_is_none() -> None:
    assert all_finite(torch.full((9,), 3e38))
    assert all_finite(torch.full((9,), 6e4, dtype=torch.float16))
