"""The network between nodes is cut, in halves, in one place, again and again, and heals.

Devices are simulated, the network is not: machines are namespaces on a switch. Whatever is cut, a
generation whose requester lives goes on or waits and says why, its picture is the one drawn in
peace, and once the network is whole so is everybody's view of it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.drawing import Drawing, Result, pixels
from launcher.simulated import Device
from machines import PLAIN_POSSIBLE, network
from simulated_machines import (
    Node,
    agreed,
    boot_again,
    cluster_on,
    incarnations,
    until,
)
from wires import cut, cut_one_way, flapping, heal, join, part, pull

PORT = 9100
PEACE = {"prompt": "a", "seed": 5, "steps": 12, "top_k": "full"}  # asks everybody at each step
LONG = {**PEACE, "steps": 120}
SUSPECT_SECONDS = 1.5  # suspect_ms and one look
SLACK_SECONDS = 1.0  # of a machine with other things to do

if not PLAIN_POSSIBLE:
    pytest.skip("needs root, ip, and network namespaces", allow_module_level=True)


@pytest.fixture
def four(tmp_path: Path) -> Iterator[list[Node]]:
    yield from nodes(tmp_path, 4)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Node]]:
    yield from nodes(tmp_path, 3)


def nodes(where: Path, count: int) -> Iterator[list[Node]]:
    """So many nodes and experts: each is the only holder of one."""
    device = Device(experts=count, batch_us=20_000, row_us=1_000, load_ms=100)
    with (
        network(where, count, PORT, wireguard=False) as machines,
        cluster_on(machines, device) as running,
    ):
        yield running


def under_way(node: Node) -> Drawing:
    """A long picture asked of a node, when it has begun."""
    drawing = node.submit(LONG)
    drawing.until(lambda event: event["event"] == "step")
    return drawing


def by_way(result: Result) -> list[dict[str, Any]]:
    """The calls that a third node passed on."""
    return [call for call in result["calls"] if "via" in call]


def test_two_halves_go_on_alone_and_become_one_again(four: list[Node]) -> None:
    one, two, three, last = four
    expected = pixels(one.draw(LONG))
    before = incarnations(four)
    left, right = under_way(one), under_way(three)
    machines = [node.machine for node in four]
    part(machines[:2], machines[2:])
    assert pixels(left.result()) == expected  # once what the other half holds is loaded here
    assert pixels(right.result()) == expected
    for half in ([one, two], [three, last]):
        agreed(half)
    began = time.time()
    join(machines[:2], machines[2:])
    agreed(four)
    print(f"one view {time.time() - began:.1f} s after healing")
    assert incarnations(four) == before
    for node in four:
        assert pixels(node.draw(LONG)) == expected


def test_who_died_behind_a_cut_is_no_ghost_and_is_new_when_it_returns(four: list[Node]) -> None:
    one, two, three, last = four
    expected = pixels(one.draw(PEACE))
    before = incarnations(four)[0]
    machines = [node.machine for node in four]
    part(machines[:2], machines[2:])
    until(lambda: three.name not in one.links() and one.name not in three.links())
    last.kill()
    join(machines[:2], machines[2:])
    agreed([one, two, three])
    assert pixels(one.draw(PEACE)) == expected
    boot_again(last)
    agreed(four)
    after = incarnations(four)
    assert after[0][last.name] > before[last.name]
    assert all(seen == after[0] for seen in after)
    assert pixels(last.draw(PEACE)) == expected


def test_where_only_one_link_is_cut_nothing_is_placed_anew(three: list[Node]) -> None:
    one, two, both = three
    expected, quick = pixels(one.draw(LONG)), pixels(one.draw(PEACE))
    moves = [node.moves() for node in three]
    plan = one.figures()["plan"]
    drawings = [under_way(one), under_way(two), under_way(both)]
    cut(one.machine, two.machine)
    for drawing in drawings:  # what has no link of its own goes by way of the third
        assert pixels(drawing.result()) == expected
    assert {call["via"] for call in by_way(one.draw(PEACE))} == {both.name}
    until(lambda: one.links()[two.name] == "down" and two.links()[one.name] == "down")
    held_out = time.monotonic() + 10  # longer than it takes to be called gone
    while time.monotonic() < held_out:
        for node in three:
            assert set(node.links()) == {n.name for n in three}
            assert node.figures()["plan"] == plan
    assert pixels(both.draw(PEACE)) == quick
    heal(one.machine, two.machine)
    agreed(three)
    assert by_way(one.draw(PEACE)) == []
    assert [node.moves() for node in three] == moves


def test_a_link_that_carries_one_way_only_is_none(three: list[Node]) -> None:
    one, two, both = three
    expected = pixels(one.draw(PEACE))
    moves = [node.moves() for node in three]
    began = time.time()
    cut_one_way(one.machine, two.machine)
    assert two.until_said("link", one, "suspect", began) < SUSPECT_SECONDS + SLACK_SECONDS
    assert pixels(both.draw(PEACE)) == expected
    heal(one.machine, two.machine)
    agreed(three)
    assert [node.moves() for node in three] == moves
    assert pixels(one.draw(PEACE)) == expected


def test_a_flapping_link_costs_no_picture_and_no_placement(three: list[Node]) -> None:
    one, two, _ = three
    expected = pixels(one.draw(PEACE))
    moves = [node.moves() for node in three]
    with flapping(one.machine, two.machine, seed=4):
        over = time.monotonic() + 12
        while time.monotonic() < over:
            for node in three:
                assert pixels(node.draw(PEACE)) == expected
    agreed(three)
    assert [node.moves() for node in three] == moves


def test_a_pulled_cable_is_noticed_by_the_silence(three: list[Node]) -> None:
    one, two, both = three
    expected = pixels(one.draw(LONG))
    drawing = under_way(one)
    began = time.time()
    pull(two.machine)
    assert one.until_said("link", two, "suspect", began) < SUSPECT_SECONDS + SLACK_SECONDS
    assert pixels(drawing.result()) == expected
    agreed([one, both])
    began = time.time()
    pull(two.machine, out=False)
    agreed(three)
    print(f"one view {time.time() - began:.1f} s after the cable was back")
    assert pixels(two.draw(LONG)) == expected


def test_a_frozen_node_is_a_member_again_and_has_judged_nobody(three: list[Node]) -> None:
    one, two, both = three
    expected = pixels(one.draw(LONG))
    drawing = under_way(one)
    began = time.time()
    two.signal(signal.SIGSTOP)
    assert one.until_said("link", two, "suspect", began) < SUSPECT_SECONDS + SLACK_SECONDS
    woken = time.time()
    two.signal(signal.SIGCONT)
    assert one.until_said("link", two, "up", woken) < SLACK_SECONDS
    assert pixels(drawing.result()) == expected
    two.signal(signal.SIGSTOP)
    until(lambda: two.name not in one.links() and two.name not in both.links())
    woken = time.time()
    two.signal(signal.SIGCONT)
    agreed(three)
    for peer in (one, both):
        assert two.said("member", peer, "gone", began) is None
        assert two.said("link", peer, "suspect", began) is None
    assert pixels(two.draw(LONG)) == expected
