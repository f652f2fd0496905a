"""A seed is a schedule: the same every time, of things that may be done, and it can be written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chaos.plan import KINDS, POISON, REQUESTER_SECONDS, REQUESTERS, Plan, plan

SEEDS = range(1, 201)


@pytest.mark.parametrize("model", KINDS)
def test_the_same_seed_is_the_same_schedule(model: str) -> None:
    assert [plan(seed, model) for seed in SEEDS] == [plan(seed, model) for seed in SEEDS]
    assert len({json.dumps(plan(seed, model).to_json()) for seed in SEEDS}) == len(SEEDS)


def test_four_seeds_in_a_row_have_every_mode() -> None:
    for first in (1, 2, 17):
        modes = {(p.company, p.deterministic) for p in map(plan, range(first, first + 4))}
        assert len(modes) == 4


@pytest.mark.parametrize("model", KINDS)
def test_twenty_seeds_have_every_fault(model: str) -> None:
    kinds = {fault.kind for seed in range(1, 21) for fault in plan(seed, model).faults}
    assert kinds == {*KINDS[model].faults, "kill_all"}


def test_only_the_last_fault_ends_a_requester() -> None:
    endings = 0
    for chosen in map(plan, SEEDS):
        for fault in chosen.faults[:-1]:
            every = [chosen.aim(fault, [asked]) for asked in range(5)]
            assert all(node >= REQUESTERS for f in every for node in chosen.kills(f))
            assert fault.kind != "leave" or all(f.node >= REQUESTERS for f in every if f.node)
        endings += any(node < REQUESTERS for node in chosen.kills(chosen.faults[-1]))
    assert 0 < endings < len(SEEDS)


def test_some_companies_have_one_poisoned_request_and_no_fault_waits_for_it() -> None:
    poisoned = 0
    for chosen in map(plan, SEEDS):
        names = [g.name for g in chosen.generations if g.request["prompt"] == POISON]
        assert len(names) <= int(chosen.company)
        assert not {fault.after for fault in chosen.faults} & set(names)
        poisoned += len(names)
    assert 20 < poisoned < 80


def test_a_fault_strikes_within_the_steps_of_its_generation() -> None:
    for chosen in map(plan, SEEDS):
        steps = {g.name: g.request["steps"] for g in chosen.generations}
        assert all(1 <= fault.step < steps[fault.after] for fault in chosen.faults)


def test_an_aimed_fault_strikes_whom_its_generation_asks_where_it_may() -> None:
    chosen = plan(1)
    fault = replace(chosen.faults[0], kind="kill_node", node=4, aimed=True)
    assert chosen.aim(fault, [0, 3, 2]).node == 3
    assert chosen.aim(fault, [0, 1]).node == 4
    assert chosen.aim(replace(fault, aimed=False), [3]).node == 4


def test_a_requester_is_not_stopped_for_longer_than_its_clients_wait() -> None:
    chosen = plan(1)
    fault = replace(chosen.faults[0], kind="stop_node", node=4, seconds=12.0, aimed=True)
    assert chosen.aim(fault, [1]).seconds == REQUESTER_SECONDS
    assert chosen.aim(fault, [3]).seconds == 12.0


def test_a_plan_comes_back_from_a_history() -> None:
    for chosen in map(plan, SEEDS):
        assert Plan.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen
