"""A cluster whose machines are network namespaces: over WireGuard as on a tailnet, over TLS as on a
LAN; with a listener on the cable that must not understand a word.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agreement import reference
from baguette.pipeline import Pipeline
from live import PATIENCE
from machines import POSSIBLE, Machine, network

PORT = 9100  # each machine has its own
REQUEST = {"prompt": "a green star on a white background", "seed": 11, "steps": 8}

if not POSSIBLE:
    pytest.skip("needs root, /dev/net/tun, ip, wg, wireguard-go", allow_module_level=True)


# Everything that passes a cable, into a file.
EARS = """
import socket, sys
ears = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
ears.bind((sys.argv[1], 0))
with open(sys.argv[2], "wb", buffering=0) as file:
    while True:
        file.write(ears.recv(65536))
"""


@contextlib.contextmanager
def listening(machine: Machine) -> Iterator[Path]:
    """What passes this machine's cable while inside."""
    heard = machine.home / "heard"
    ears = machine.start(sys.executable, "-c", EARS, machine.cable, str(heard))
    try:
        until = time.monotonic() + PATIENCE
        while not heard.exists():
            assert time.monotonic() < until
        yield heard
    finally:
        ears.kill()
        ears.wait()


def check_cluster(machines: list[Machine], expected: str) -> None:
    """Two joined machines see each other, and both draw the reference's picture."""
    one, two = machines[:2]
    one.until_status(f"{one.address} (this)", two.address)
    for machine in machines:
        assert machine.draw(**REQUEST)["images"][0]["pixels_sha256"] == expected
    assert f"{two.address} has left" in two.good("leave")
    assert two.address not in one.status()
    one.good("leave")


@pytest.mark.parametrize("wireguard", [True, False], ids=["tailnet", "lan"])
def test_a_cluster_between_machines_is_encrypted(
    tmp_path: Path, reference_eight: Pipeline, wireguard: bool
) -> None:
    expected = reference(reference_eight, REQUEST)["images"][0]["pixels_sha256"]
    peers = {} if wireguard else {"PEERS": "192.168.77.1"}
    with network(tmp_path, 2, PORT, wireguard) as machines:
        one, two = machines
        with listening(one) as heard:
            told = one.good("join", **peers)
            assert f"READY as {one.address}" in told
            invitation = one.good("invite").splitlines()[-1]
            assert ("PEERS=" in invitation) == (not wireguard)
            status, told = two.accept(invitation)
            assert status == 0, told
            assert (", direct" in told) == wireguard  # as the finder says of the link
            check_cluster(machines, expected)
            said = heard.read_bytes()
        assert len(said) > 100_000
        assert b"baguette" not in said


def test_another_secret_is_told_over_tls_too(tmp_path: Path) -> None:
    with network(tmp_path, 2, PORT, wireguard=False) as (one, two):
        one.good("join", PEERS="")
        status, told = two.node("join", PEERS=one.address, SECRET="new")
        assert status == 1, told
        assert "another secret" in told
        one.good("leave")
