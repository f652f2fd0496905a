"""Three seeds on real workers: alone, in company, and in company where only a tolerance holds.

`make test-chaos` plays twenty. Histories and the nodes' logs are kept in build/chaos.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.plan import plan
from chaos.run import OUT, play, replay_line
from chaos.stage import Stage, staged


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One cluster for all seeds: every one leaves it whole, or it failed."""
    with staged("tiny", OUT / "cluster-test") as running:
        yield running


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_picture_is_lost_or_changed(stage: Stage, seed: int) -> None:
    assert not stage.unfit, "an earlier seed left the cluster broken"
    chosen = plan(seed)
    found = play(stage, chosen, OUT / f"test-{seed}.jsonl", print)
    stage.unfit = bool(found)
    assert not found, f"again: {replay_line(chosen)}"


def test_the_three_seeds_are_alone_in_company_and_loose() -> None:
    modes = [(p.company, p.deterministic) for p in map(plan, (1, 2, 3))]
    assert modes == [(False, True), (True, True), (True, False)]
