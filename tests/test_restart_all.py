"""All nodes killed and started again at once, in any order: one cluster as before, and no ghost."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Iterator

import pytest

from launcher import nodes
from launcher.control import Control
from launcher.drawing import Result, pixels
from launcher.nodes import node_name
from launcher.processes import wait_gone
from launcher.progress import Progress
from launcher.simulated import Device, Fleet, cluster_of
from launcher.waiting import CONNECT_SECONDS, become_ready
from live import PATIENCE, free_port

NODES = 4
ROUNDS = 3
DEVICE = Device(experts=NODES, batch_us=3000, row_us=1000, load_ms=20)
REQUEST = {"prompt": "a", "steps": 8, "seed": 5, "n": 2, "top_k": "full"}


@pytest.fixture
def running(own_run: None) -> Iterator[Fleet]:
    launch = nodes.Launch(NODES, None, engine=DEVICE.settings(NODES))
    cluster = nodes.Cluster(free_port(NODES), mode="simulated")
    with cluster_of(cluster, launch, Progress()) as fleet:
        yield fleet


def draw(fleet: Fleet) -> list[str]:
    fleet.control.ask("generate", request=REQUEST, watch=False)
    result: Result = fleet.control.answer("done")["result"]
    assert {call["expert"] for call in result["calls"]} == set(range(NODES))
    return pixels(result)


def views(fleet: Fleet) -> dict[str, dict[str, int]]:
    """Node -> whom it lists, by incarnation, once all list all, each once and up."""
    everybody = sorted(map(node_name, range(NODES)))
    deadline = time.monotonic() + PATIENCE
    while True:
        found = {figures["node"]: figures["members"] for figures in fleet.at_rest(NODES)}
        up = [[m["node"] for m in ms if m["link"] == "up"] for ms in found.values()]
        if all(sorted(names) == everybody for names in up):
            break
        assert time.monotonic() < deadline, found
    for members in found.values():
        assert len(members) == NODES  # and so nobody twice, and nobody who is not up
    return {n: {m["node"]: m["incarnation"] for m in ms} for n, ms in found.items()}


def kill_all(fleet: Fleet, order: list[int]) -> None:
    """SIGKILL for every node, one right after the other."""
    fleet.control.__exit__()
    for index in order:
        fleet.cluster.nodes[index].signal(signal.SIGKILL)
    assert wait_gone(fleet.cluster.nodes, PATIENCE) == []


def start_all(fleet: Fleet, order: list[int], pause: float) -> float:
    """Every node again; seconds until the first of them could draw."""
    began = time.monotonic()
    for index in order:
        fleet.start_node(index)
        time.sleep(pause)
    fleet.control = Control(fleet.cluster.target())
    fleet.control.connect(CONNECT_SECONDS)
    become_ready(fleet.cluster, fleet.control, NODES, Progress())
    return time.monotonic() - began


def test_all_killed_and_started_again_in_any_order(running: Fleet) -> None:
    expected = draw(running)
    before = views(running)
    orders = list(itertools.permutations(range(NODES)))
    dice = random.Random(8)
    for round_number in range(ROUNDS):
        kill_all(running, list(dice.choice(orders)))
        order = list(dice.choice(orders))
        # At once, but for one round in which each finds the ones before it already running.
        seconds = start_all(running, order, 0.7 if round_number == 1 else 0.0)
        assert draw(running) == expected
        after = views(running)
        print(f"started in the order {order}: {seconds:.1f} s until it draws")
        assert len({tuple(sorted(view.items())) for view in after.values()}) == 1
        old, new = before[node_name(0)], after[node_name(0)]
        assert all(new[name] > old[name] for name in new)
        before = after
    running.control.__exit__()
