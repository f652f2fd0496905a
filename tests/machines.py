"""Machines for a test: each with a home, a secret and a run directory of its own.

`loopback` machines share this machine's network and differ by address. `network` machines are
network namespaces on one switch, as on a LAN; with `wireguard` they are a mesh besides, each pair
behind its own keys, at addresses of the tailnet's range, and `tailscale` is a program that tells
what Tailscale would. Whatever is started in them carries TAG and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from live import PATIENCE, ROOT, TAG, leftovers

NODE = ROOT / "scripts" / "node.py"
NEEDED = ("ip", "wg", "wireguard-go")
WG_PORT = 51820


def _plain() -> bool:
    """Whether `network` can be had here without WireGuard: rights and a kernel that lets us."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    name = f"bgt{uuid.uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


def _wireguard_too() -> bool:
    """Whether its machines can be a mesh besides."""
    if not all(map(shutil.which, NEEDED)):
        return False
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return False
    return True


PLAIN_POSSIBLE = _plain()
POSSIBLE = PLAIN_POSSIBLE and _wireguard_too()

# What the line of `make invite` calls: make itself, in our checkout, with something to compile
# before it comes to the command, as on a new machine.
MAKE = """#!/bin/sh
exec {make} -C {root} -W apps/baguette/src/baguette.erl "$@"
"""


@dataclass(frozen=True)
class Machine:
    """One machine: its address, its files, and what it takes to run something on it."""

    address: str
    home: Path
    tag: str
    port: int
    namespace: str | None = None
    tailnet: str | None = None  # its address there
    interface: str = ""
    lan: str = ""
    cable: str = ""
    switch: str = ""  # the namespace at whose end of the cable the others are

    def environment(self, **options: str) -> dict[str, str]:
        foreign = ("BAGUETTE", "XDG_", "MAKE", "MFLAGS", "PORT", "NODES", "MODEL")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        own = {
            "HOME": str(self.home),
            "PATH": f"{self.home}/bin:{clean['PATH']}",
            "BAGUETTE_RUN": str(self.home / "run"),
            "TAILSCALE": str(self.home / "bin" / "tailscale"),
            "PORT": str(self.port),
            TAG: self.tag,
        }
        if self.tailnet is None:
            own["ADDRESS"] = self.address
        return {**clean, **own, **options}

    def start(self, *command: str, **options: str) -> subprocess.Popen[str]:
        """Run a program on this machine; both outputs in one."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return subprocess.Popen(
            [*inside, *command],
            env=self.environment(**options),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread starts while inside is started on this machine."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(home)
            os.close(there)
            os.close(home)

    def run(self, *command: str, **options: str) -> tuple[int, str]:
        """Run a program on this machine to its end: exit status and output."""
        popen = self.start(*command, **options)
        try:
            output, _ = popen.communicate(timeout=PATIENCE)
        except BaseException:
            popen.kill()
            raise
        return popen.returncode, output

    def node(self, command: str, **options: str) -> tuple[int, str]:
        """`scripts/node.py COMMAND`."""
        return self.run(sys.executable, str(NODE), command, **options)

    def good(self, command: str, **options: str) -> str:
        """As `node`; its output, when it succeeded."""
        status, output = self.node(command, **options)
        assert status == 0, output
        return output

    def status(self) -> str:
        """What `make status` prints."""
        status, output = self.run(sys.executable, str(ROOT / "scripts" / "cluster.py"), "status")
        assert status == 0, output
        return output

    def until_status(self, *words: str) -> str:
        """`make status` once it holds all these words."""
        until = time.monotonic() + PATIENCE
        while True:
            text = self.status()
            if all(word in text for word in words):
                return text
            assert time.monotonic() < until, f"{words} did not come to stand in:\n{text}"

    def draw(self, **request: Any) -> dict[str, Any]:
        """A picture asked of this machine's node."""
        program = str(ROOT / "tests" / "draw_here.py")
        status, output = self.run(sys.executable, program, self.address, json.dumps(request))
        assert status == 0, output
        result: dict[str, Any] = json.loads(output.splitlines()[-1])
        return result

    def secret_file(self) -> Path:
        return self.home / ".config" / "baguette" / "secret"

    def accept(self, invitation: str) -> tuple[int, str]:
        """Type the line that `make invite` printed elsewhere."""
        return self.run("sh", "-c", invitation)

    def share_secret(self, other: Machine) -> None:
        """As if an invitation had been accepted before."""
        other.secret_file().parent.mkdir(parents=True)
        other.secret_file().write_bytes(self.secret_file().read_bytes())
        other.secret_file().chmod(0o400)


def _enter(namespace: int) -> None:
    """This thread's network is the one of that namespace from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(namespace, 0x40000000) == 0, os.strerror(ctypes.get_errno())  # CLONE_NEWNET


def _make_home(home: Path) -> None:
    (home / "bin").mkdir(parents=True)
    make = MAKE.format(make=shutil.which("make"), root=shlex.quote(str(ROOT)))
    (home / "bin" / "make").write_text(make)
    (home / "bin" / "tailscale").write_text(f"#!/bin/sh\ncat {home}/status.json\n")
    for program in (home / "bin").iterdir():
        program.chmod(0o755)


@contextlib.contextmanager
def loopback(where: Path, count: int, port: int) -> Iterator[list[Machine]]:
    """Machines at 127.0.4.1 and so on."""
    tag = uuid.uuid4().hex
    made = [Machine(f"127.0.4.{i}", where / str(i), tag, port) for i in range(1, count + 1)]
    for machine in made:
        _make_home(machine.home)
    try:
        yield made
    finally:
        left = leftovers(tag, 0.0 if sys.exc_info()[0] else 15.0)
    assert left == []


@contextlib.contextmanager
def network(where: Path, count: int, port: int, wireguard: bool) -> Iterator[list[Machine]]:
    """Machines on a switch of their own; with `wireguard`, a mesh of encrypted links over it."""
    tag = uuid.uuid4().hex
    stem = f"bgt{tag[:5]}"
    switch = f"{stem}s"
    made = [
        replace(_machine(where, stem, i, tag, port, wireguard), switch=switch)
        for i in range(1, count + 1)
    ]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for machine in made:
            _plug(machine, switch)
        if wireguard:
            _mesh(made)
        yield made
    finally:
        failed = sys.exc_info()[0] is not None
        for machine in made:
            if machine.tailnet is not None:
                _down(machine)
        left = leftovers(tag, 0.0 if failed else 15.0)
        for name in [switch, *(machine.namespace or "" for machine in made)]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    assert left == []


def _machine(where: Path, stem: str, number: int, tag: str, port: int, wireguard: bool) -> Machine:
    lan = f"192.168.77.{number}"
    tailnet = f"100.64.0.{number}" if wireguard else None
    home = where / str(number)
    _make_home(home)
    return Machine(
        address=tailnet or lan,
        home=home,
        tag=tag,
        port=port,
        namespace=f"{stem}-{number}",
        tailnet=tailnet,
        interface=f"{stem}w{number}",
        lan=lan,
        cable=f"{stem}v{number}",
    )


def _plug(machine: Machine, switch: str) -> None:
    """A cable from the machine to the switch."""
    assert machine.namespace is not None
    cable = machine.cable
    _ip("netns", "add", machine.namespace)
    _ip("link", "add", cable, "type", "veth", "peer", "name", f"{cable}x")
    _ip("link", "set", cable, "netns", machine.namespace)
    _ip("link", "set", f"{cable}x", "netns", switch)
    _ip("-n", switch, "link", "set", f"{cable}x", "master", "switch", "up")
    _ip("-n", machine.namespace, "addr", "add", f"{machine.lan}/24", "dev", cable)
    _ip("-n", machine.namespace, "link", "set", cable, "up")
    _ip("-n", machine.namespace, "link", "set", "lo", "up")


def _mesh(made: list[Machine]) -> None:
    private = {m: _out("wg", "genkey") for m in made}
    public = {m: _out("wg", "pubkey", feed=key) for m, key in private.items()}
    for machine in made:
        _wireguard(machine)
    for machine in made:
        inside = ("-n", str(machine.namespace))
        key = machine.home / "wireguard.key"
        key.touch(0o600)
        key.write_text(private[machine])
        command = ["wg", "set", machine.interface, "listen-port", str(WG_PORT)]
        command += ["private-key", str(key)]
        for other in made:
            if other != machine:
                command += ["peer", public[other], "allowed-ips", f"{other.tailnet}/32"]
                command += ["endpoint", f"{other.lan}:{WG_PORT}"]
        _out(*command)
        _ip(*inside, "addr", "add", f"{machine.tailnet}/10", "dev", machine.interface)
        _ip(*inside, "link", "set", machine.interface, "up")
        (machine.home / "status.json").write_text(json.dumps(tailscale_status(machine, made)))


def _wireguard(machine: Machine) -> None:
    """Userspace WireGuard in the machine, whatever the kernel has; up when its socket is there."""
    machine.start(
        "wireguard-go", "-f", machine.interface, WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD="1"
    )
    socket = Path("/var/run/wireguard") / f"{machine.interface}.sock"
    until = time.monotonic() + PATIENCE
    while not socket.exists():
        assert time.monotonic() < until, "wireguard-go did not start"
        time.sleep(0.01)


def _down(machine: Machine) -> None:
    """wireguard-go ends with its interface."""
    subprocess.run(
        ["ip", "-n", machine.namespace or "", "link", "del", machine.interface],
        capture_output=True,
        check=False,
    )


def tailscale_status(machine: Machine, made: list[Machine]) -> dict[str, Any]:
    """What `tailscale status --json` would say on this machine."""
    return {
        "BackendState": "Running",
        "TUN": True,
        "Health": None,
        "Self": _peer(machine),
        "Peer": {f"nodekey:{m.tailnet}": _peer(m) for m in made if m != machine},
    }


def _peer(machine: Machine) -> dict[str, Any]:
    return {
        "HostName": machine.namespace,
        "TailscaleIPs": [machine.tailnet, "fd7a:115c:a1e0::1"],
        "Tags": ["tag:baguette"],
        "Online": True,
        "Active": True,
        "CurAddr": f"{machine.lan}:{WG_PORT}",
        "Relay": "fra",
    }


def _ip(*words: str) -> None:
    _out("ip", *words)


def _out(*words: str, feed: str = "") -> str:
    done = subprocess.run(words, input=feed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()
