"""More nodes than one beat speaks to: what they say at rest, and how soon a frozen one is missed.

With simulated devices; who says what to whom is told in docs/internals/gossip.md.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from statistics import median

import pytest

import live
from launcher.machine_use import rate
from launcher.node_log import first_said
from launcher.nodes import Launch, node_name
from launcher.simulated import Device, Fleet
from simulated_machines import until

NODES = 20
BEAT_SECONDS = 0.5
IN_TURN = 9.5  # of nineteen peers, on average: all of them in two beats
SUSPECT_SECONDS = 1.5  # suspect_ms and one look
SLACK_SECONDS = 1.0  # of a machine with other things to do
WATCHED_SECONDS = 5.0
A_REPORT = 2 * (NODES - 1) / WATCHED_SECONDS  # to everybody, while we watch, and the pongs
# Nobody's device: slow, so that a picture is in the drawing for longer than anything here takes.
DEVICE = Device(batch_us=200_000, row_us=1000, load_ms=20)
PICTURE = {"prompt": "a", "steps": 200, "seed": 5}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    launch = Launch(NODES, None, engine=DEVICE.settings(NODES))
    with live.running(tmp_path_factory.mktemp("run"), launch, uuid.uuid4().hex) as many:
        many.at_rest(NODES)
        yield many


def messages(running: Fleet) -> dict[str, float]:
    """What each node's gossip says, messages a second."""
    before = {figures["node"]: figures for figures in running.figures()}
    time.sleep(WATCHED_SECONDS)
    looks = [(before[now["node"]], now) for now in running.figures()]
    return {now["node"]: rate(then, now)["gossip_messages"] for then, now in looks}


def test_at_rest_a_beat_speaks_to_some(running: Fleet) -> None:
    beats_pongs_and_a_digest = (2 * IN_TURN + 1) / BEAT_SECONDS
    assert median(messages(running).values()) < beats_pongs_and_a_digest + A_REPORT


def test_whose_work_waits_speaks_to_all_and_misses_a_frozen_node_in_time(running: Fleet) -> None:
    frozen, asks, idle = NODES - 1, 0, 1
    running.control.ask("generate", request=PICTURE, watch=True)
    assert any(event["event"] == "step" for event in running.control.answers("step"))
    time.sleep(2 * BEAT_SECONDS)  # it is told once a beat that something waits
    in_turn, to_all = 2 * IN_TURN / BEAT_SECONDS, (NODES - 1 + IN_TURN) / BEAT_SECONDS
    assert messages(running)[node_name(asks)] > (in_turn + to_all) / 2
    began = time.time()
    running.cluster.nodes[frozen].signal(signal.SIGSTOP)

    def suspected(by: int) -> float:
        log = running.cluster.log(by)
        return until(lambda: first_said(log, "link", node_name(frozen), "suspect", began)) - began

    assert suspected(asks) < SUSPECT_SECONDS + SLACK_SECONDS
    assert suspected(idle) < SUSPECT_SECONDS + 2 * BEAT_SECONDS + SLACK_SECONDS
    running.cluster.nodes[frozen].signal(signal.SIGCONT)
    running.at_rest(NODES)
