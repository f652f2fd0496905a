"""`make join` and its sisters, on machines that share this one's network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agreement import reference
from baguette.pipeline import Pipeline
from launcher.processes import Process, wait_gone
from live import PATIENCE, ROOT, free_port
from machines import NODE, Machine, loopback

PROMPT = "a red circle on a blue background"
CLUSTER = NODE.with_name("cluster.py")
REQUEST = {"prompt": PROMPT, "seed": 7, "steps": 8}


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    with loopback(tmp_path, 2, free_port(1)) as made:
        yield made


def join(machine: Machine, peers: str = "") -> str:
    return machine.good("join", PEERS=peers)


def beam(machine: Machine) -> Process:
    """The node's own process: its keeper's child."""
    pids = re.findall(r'"what": "node_started", "os_pid": ([0-9]+)', log(machine))
    process = Process.of(int(pids[-1]))
    assert process is not None
    return process


def log(machine: Machine) -> str:
    return (machine.home / "run" / f"member-{machine.address}" / "node.log").read_text()


def keeper(machine: Machine) -> Process:
    pids = re.findall(r'"keeper": ([0-9]+)', log(machine))
    process = Process.of(int(pids[-1]))
    assert process is not None
    return process


def test_two_machines_join_draw_and_leave(
    machines: list[Machine], reference_eight: Pipeline
) -> None:
    one, two = machines
    told = join(one)
    assert "NODE CAPABILITY REPORT" in told
    assert "Assigned Expert: E0 E1 E2 E3 E4 E5 E6 E7" in told
    assert re.search(r"Expert Call: [0-9.]+ ms", told), told
    assert "READY" in told
    assert one.secret_file().stat().st_mode & 0o777 == 0o400
    invitation = one.good("invite").splitlines()[-1]
    status, told = two.accept(invitation)
    assert status == 0, told
    assert f"→ {one.address}: " in told
    one.until_status(f"{one.address} (this)", two.address)
    expected = reference(reference_eight, REQUEST)["images"][0]["pixels_sha256"]
    for machine in machines:
        assert machine.draw(**REQUEST)["images"][0]["pixels_sha256"] == expected
    assert f"{two.address} has left" in two.good("leave")
    assert two.address not in one.status()
    assert "has not joined" in two.good("leave")
    one.good("leave")


def test_leaving_under_load_repeats_no_call(
    machines: list[Machine], reference_eight: Pipeline
) -> None:
    one, two = machines
    join(one)
    one.share_secret(two)
    join(two, one.address)
    one.until_status(two.address)
    request = {"prompt": PROMPT, "seed": 7, "steps": 60, "n": 4, "top_k": "full"}
    program = str(ROOT / "tests" / "draw_here.py")
    drawing = one.start(sys.executable, program, one.address, json.dumps(request))
    one.until_status("asking")
    two.good("leave")
    output, _ = drawing.communicate(timeout=PATIENCE)
    assert drawing.returncode == 0, output
    result = json.loads(output.splitlines()[-1])
    expected = reference(reference_eight, request)
    assert [i["pixels_sha256"] for i in result["images"]] == [
        i["pixels_sha256"] for i in expected["images"]
    ]
    assert f"baguette@{two.address}" in {call["node"] for call in result["calls"]}
    assert result["failovers"] == []
    one.good("leave")


def test_another_secret_is_told_on_the_joining_side(machines: list[Machine]) -> None:
    one, two = machines
    join(one)
    status, told = two.node("join", PEERS=one.address, SECRET="new")
    assert status == 1, told
    assert "another secret" in told
    assert one.address in told
    assert "make invite" in told
    one.good("leave")


def test_without_a_secret_one_does_not_start_a_second_cluster(machines: list[Machine]) -> None:
    one, two = machines
    join(one)
    status, told = two.node("join", PEERS=one.address)
    assert status == 1
    assert "make invite" in told
    assert not two.secret_file().exists()
    one.good("leave")


def test_a_killed_node_is_ready_again_by_itself(machines: list[Machine]) -> None:
    one, _ = machines
    join(one)
    first = beam(one)
    family = first.descendants()
    assert family
    first.signal(signal.SIGKILL)
    assert wait_gone([first, *family], 10.0) == []
    until = time.monotonic() + PATIENCE
    while len(re.findall("node_started", log(one))) < 2:
        assert time.monotonic() < until
    assert beam(one) != first
    until = time.monotonic() + PATIENCE
    while True:
        status, told = one.run(sys.executable, str(CLUSTER), "status")  # refused while it starts
        if status == 0 and "expert-7" in told:
            break
        assert time.monotonic() < until, told
    assert one.draw(**REQUEST)["images"]
    one.good("leave")


def test_nothing_outlives_a_killed_keeper(machines: list[Machine]) -> None:
    one, _ = machines
    join(one)
    node = beam(one)
    family = [node, *node.descendants()]
    keeper(one).signal(signal.SIGKILL)
    assert wait_gone(family, 20.0) == []


def test_an_interrupted_join_leaves_nothing(machines: list[Machine]) -> None:
    one, _ = machines
    popen = one.start(sys.executable, str(NODE), "join", PEERS="")
    until = time.monotonic() + PATIENCE
    run = one.home / "run" / f"member-{one.address}"
    while not (run / "node.log").exists():
        assert time.monotonic() < until
    popen.send_signal(signal.SIGINT)
    output, _ = popen.communicate(timeout=PATIENCE)
    assert popen.returncode == 130, output
    assert not (run / "member.json").exists()
    assert not (run / "xdg").exists()


def test_joining_twice_is_refused(machines: list[Machine]) -> None:
    one, _ = machines
    join(one)
    status, told = one.node("join", PEERS="")
    assert status == 1
    assert "has joined already" in told
    one.good("leave")


def test_a_second_join_at_the_same_time_changes_nothing(machines: list[Machine]) -> None:
    one, _ = machines
    first, second = (one.start(sys.executable, str(NODE), "join", PEERS="") for _ in range(2))
    told = [popen.communicate(timeout=PATIENCE)[0] for popen in (first, second)]
    assert sorted((first.returncode, second.returncode)) == [0, 1], told
    assert one.draw(**REQUEST)["images"]
    assert "has left" in one.good("leave")


def test_a_refused_join_leaves_the_secret_as_it_was(machines: list[Machine]) -> None:
    one, _ = machines
    join(one)
    secret = one.secret_file().read_text()
    status, _ = one.node("join", PEERS="", SECRET="new")
    assert status == 1
    assert one.secret_file().read_text() == secret
    one.good("leave")


def test_a_machine_with_experts_only_joins_and_serves_none(
    machines: list[Machine], tmp_path: Path
) -> None:
    one, _ = machines
    model = tmp_path / "experts"
    whole = ROOT / "weights" / "paris-mini"
    for part in ("expert_0", "expert_1"):
        shutil.copytree(whole / part, model / part)
    shutil.copy(whole / "config.json", model)
    told = one.good("join", PEERS="", MODEL=str(model))
    assert "Assigned Expert: E0 E1" in told
    assert "the cluster waits for E2 E3 E4 E5 E6 E7" in told
    assert "E3: nobody has it whole on its disk" in one.status()
    one.good("leave")


def test_the_secret_is_in_no_command_line_and_no_environment(machines: list[Machine]) -> None:
    one, _ = machines
    join(one)
    secret = one.secret_file().read_text().strip()
    cookie = next((one.home / "run").glob("member-*/xdg/erlang/.erlang.cookie")).read_text()
    for process in (keeper(one), *keeper(one).descendants()):
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert secret.encode() not in shown
            assert secret.split("-")[1].encode() not in shown
            assert cookie.encode() not in shown
    one.good("leave")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"PEERS": "no.such.host.invalid"}, "has no IPv4 address"),
        ({"PEERS": "", "ADDRESS": "8.8.8.8"}, "is no address of this machine"),
        ({"PEERS": "", "ADDRESS": "0.0.0.0"}, "is no address of one interface"),
        ({"PEERS": "", "SECRET": "hunter2"}, "must not stand on a command line"),
        ({"PEERS": "", "PORT": "80"}, "PORT got 80 but expected 2024..65535"),
        ({"PEERS": "", "MODEL": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    machines: list[Machine], options: dict[str, str], words: str
) -> None:
    status, told = machines[0].node("join", **options)
    assert status in (1, 2)
    assert words in told
    assert "Traceback" not in told
    assert not machines[0].secret_file().exists()


def test_the_doctor_says_what_holds_the_port(machines: list[Machine]) -> None:
    one, _ = machines
    with socket.socket() as other:
        other.bind((one.address, one.port))
        other.listen(1)
        status, told = one.node("doctor", PEERS="")
        assert status == 1
        assert f"{one.port} on {one.address} cannot be used" in told
        assert "ss -ltnp" in told
    status, told = one.node("doctor", PEERS="")
    assert (status, "All is well" in told) == (0, True), told


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ('{"BackendState": "Stopped"}', "sudo tailscale up"),
        ('{"BackendState": "NeedsLogin"}', "sudo tailscale login"),
        ('{"BackendState": "Running", "TUN": false}', "userspace networking"),
        ("garbage", "not JSON"),
    ],
)
def test_the_doctor_says_what_tailscale_needs(
    machines: list[Machine], status: str, words: str
) -> None:
    one, _ = machines
    (one.home / "status.json").write_text(status)
    code, told = one.node("doctor", ADDRESS="")
    assert code == 1
    assert words in told


def test_the_service_manager_gets_a_foreground_node(machines: list[Machine]) -> None:
    one, _ = machines
    popen = one.start(sys.executable, str(NODE), "join", PEERS="", FOREGROUND="1")
    until = time.monotonic() + PATIENCE
    while (
        "pipeline" not in (one.run(sys.executable, str(NODE.with_name("cluster.py")), "status")[1])
    ):
        assert time.monotonic() < until
        assert popen.poll() is None, popen.communicate()
    os.kill(popen.pid, signal.SIGTERM)
    assert popen.wait(timeout=30) == 0
