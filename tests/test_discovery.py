"""An hour of discovery, 720 cycles of it, with peers coming and going: nothing grows."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.erlang import Atom, environment, member_flags, write_config, write_cookie
from live import PATIENCE, TAG
from machines import POSSIBLE, Machine, network

PORT = 9100
CYCLES = 720  # an hour at the 5 s of a real node
WARM = 120  # a young node grows: code is loaded, tables are made
COMINGS = 5
ALLOWED = 0.05
ADDRESSES = [f"100.64.0.{i}" for i in range(1, 31)]

# The room alone, and a line of figures now and then. What a process has not yet collected is no
# growth: when it does is the machine's luck, and that of two moments was once worth 5 %.
RUN = """
{ok, _} = application:ensure_all_started(baguette_cluster),
F = fun F() ->
    [garbage_collect(P) || P <- processes()],
    Figures = [erlang:system_info(I) || I <- [atom_count, process_count, port_count]],
    io:format("~b ~b ~b ~b~n", [os:system_time(millisecond) | Figures]),
    receive after 50 -> F() end
end,
F().
"""
# Counts its calls; every call names other peers than the last.
CLI = """#!/bin/sh
n=$(($(cat {home}/cycles) + 1))
echo $n > {home}/cycles.new
mv {home}/cycles.new {home}/cycles
cat {home}/status-$((n % 5)).json
"""


@dataclass(frozen=True)
class Figures:
    """Of one moment, or the least of some: attempts to connect come and go."""

    rss_kib: int
    atoms: int
    processes: int
    ports: int

    @staticmethod
    def least(several: list[Figures]) -> Figures:
        return Figures(*(min(column) for column in zip(*map(_values, several), strict=True)))


def _values(figures: Figures) -> tuple[int, ...]:
    return (figures.rss_kib, figures.atoms, figures.processes, figures.ports)


if not POSSIBLE:
    pytest.skip("needs root and network namespaces", allow_module_level=True)


def test_an_hour_of_discovery_leaves_a_node_as_it_was(tmp_path: Path) -> None:
    with network(tmp_path, 1, PORT, wireguard=False) as (machine,):
        _tailnet(machine)
        with _beam(machine, ADDRESSES[0]) as node:
            _peer_comes_and_goes(machine, WARM)  # what a peer needs is there from now on
            before = _figures(machine, node, WARM)
            _peer_comes_and_goes(machine, WARM + CYCLES)
            after = _figures(machine, node, WARM + CYCLES)
    for was, now in zip(_values(before), _values(after), strict=True):
        assert now <= was * (1 + ALLOWED), (before, after)


def _peer_comes_and_goes(machine: Machine, cycles: int) -> None:
    """The first peer is really there, now and then, until that cycle and COMINGS times at least."""
    comings = 0
    while _cycles(machine) < cycles or comings < COMINGS:
        with _beam(machine, ADDRESSES[1]) as peer:
            _figures(machine, peer, _cycles(machine) + 10)
        comings += 1


def _tailnet(machine: Machine) -> None:
    """Every address answers, or refuses, at once; five lists of peers in turn."""
    for address in ADDRESSES:
        command = ["ip", "-n", str(machine.namespace), "addr", "add", f"{address}/32", "dev", "lo"]
        subprocess.run(command, check=True)
    for number in range(5):
        listed = [a for i, a in enumerate(ADDRESSES[1:]) if i == 0 or i % 5 != number]
        status = {
            "BackendState": "Running",
            "TUN": True,
            "Self": _peer(ADDRESSES[0]),
            "Peer": {address: _peer(address) for address in listed},
        }
        (machine.home / f"status-{number}.json").write_text(json.dumps(status))
    (machine.home / "cycles").write_text("0")
    (machine.home / "bin" / "tailscale").write_text(CLI.format(home=machine.home))


def _peer(address: str) -> dict[str, object]:
    return {"TailscaleIPs": [address], "Tags": ["tag:baguette"], "Online": True}


@contextlib.contextmanager
def _beam(machine: Machine, address: str) -> Iterator[subprocess.Popen[str]]:
    """A node that looks for others; the first one as fast as it can."""
    run = machine.home / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    write_cookie(run, "an hour")
    config = run / f"{address}.config"
    finder = {"finder": Atom("baguette_cluster_discovery_tailscale"), "find_ms": 10}
    tailscale = {**finder, "tailscale": str(machine.home / "bin" / "tailscale")}
    none = {"component_module": Atom("undefined")}
    write_config(config, {"baguette_cluster": {**none, **(tailscale if first(address) else {})}})
    command = member_flags(address, machine.port, [config])
    popen = subprocess.Popen(
        [
            *("ip", "netns", "exec", str(machine.namespace)),
            *(*command[: command.index("-run")], "-eval", RUN),
        ],
        env={**environment(run), TAG: machine.tag},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield popen
    finally:
        popen.kill()
        popen.communicate()


def first(address: str) -> bool:
    return address == ADDRESSES[0]


def _cycles(machine: Machine) -> int:
    return int((machine.home / "cycles").read_text())


def _figures(machine: Machine, node: subprocess.Popen[str], cycles: int) -> Figures:
    """The node's figures at that cycle: the least of forty lines after it."""
    until = time.monotonic() + 2 * PATIENCE
    several: list[Figures] = []
    assert node.stdout is not None
    while len(several) < 40:
        line = node.stdout.readline()
        assert line, "the node ended"
        assert time.monotonic() < until, "the cycles do not go on"
        numbers = line.split()
        if len(numbers) != 4 or not all(map(str.isdigit, numbers)):
            continue
        said_ms, *figures = map(int, numbers)
        if _cycles(machine) >= cycles and said_ms > (time.time() - 1) * 1000:
            several.append(Figures(_rss_kib(node.pid), *figures))
    return Figures.least(several)


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
