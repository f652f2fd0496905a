"""Everything that must hold before a node can join, checked without starting one.

`make doctor` prints it, `make join` does not begin without it. A check says what it found and,
where something is wrong, what to type. What Erlang knows (the tailnet) is asked of Erlang
(baguette_doctor.erl), what Python computes with is asked of the package's own `check` command, in
a process of its own: a broken torch must not break the doctor.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.addresses import (
    TAILNET,
    WEB_PORT_BELOW,
    is_loopback,
    present_here,
    toward,
    web_host,
    why_taken,
)
from launcher.erlang import RUN, erl, term
from launcher.join_options import JoinOptions
from launcher.options import ROOT
from launcher.processes import Refused
from launcher.secret import Secret, secret_file

ERLANG_SECONDS = 30.0
PYTHON_SECONDS = 1800.0  # a large model on a slow disk is hashed whole
CONNECT_SECONDS = 1.5
INVITE = "run `make invite` on a machine of the cluster, and here the line that it prints"
MARKS = {"ok": "✓", "warn": "!", "bad": "✗"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `todo`: what to type, where something is wrong."""

    name: str
    state: str  # ok, warn, bad
    text: str
    todo: str = ""

    def line(self) -> str:
        todo = f"\n    → {self.todo}" if self.todo else ""
        return f"{MARKS[self.state]} {self.name:<22} {self.text}{todo}"


@dataclass
class Examination:
    """What was found; `host` None where this machine has no address to join with."""

    checks: list[Check] = field(default_factory=list)
    host: str | None = None
    peers: list[str] = field(default_factory=list)
    answering: list[str] = field(default_factory=list)
    tls: bool = False
    serves: bool = True  # has the parts of the model that a requesting node needs

    @property
    def bad(self) -> list[Check]:
        return [check for check in self.checks if check.state == "bad"]

    def add(self, name: str, state: str, text: str, todo: str = "") -> None:
        self.checks.append(Check(name, state, text, todo))


def examine(options: JoinOptions, ours: str | None = None, invited: bool = False) -> Examination:
    """Look at everything; nothing is started or changed.

    `ours`: a node of this machine runs there, and what it holds is no trouble. `invited`: a secret
    has come with an invitation.
    """
    found = Examination()
    if options.peers is None:
        _tailnet(found, options.tailscale)
    else:
        _chosen(found, options)
    if found.host is not None:
        _port(found, found.host, options.port, ours == found.host)
        _others(found, options, ours)
    _secret(found, invited)
    _python(found, options.model_dir)
    _writable(found)
    return found


def _tailnet(found: Examination, cli: str) -> None:
    """Through the finder that the node will use."""
    said = _ask_erlang(cli)
    found.checks += [Check(**check) for check in said["checks"]]
    found.host = said["own"]
    found.peers = [peer for peer in said["peers"] if peer != said["own"]]


def _ask_erlang(cli: str) -> dict[str, Any]:
    command = [
        *erl(),
        "-noinput",
        *("-baguette_cluster", "tailscale", term(cli)),
        *("-eval", "baguette_doctor:main()"),
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ERL_")}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=ERLANG_SECONDS, env=env, check=True, cwd=ROOT
        )
        said: dict[str, Any] = json.loads(done.stdout)
        return said
    except (subprocess.SubprocessError, ValueError) as error:
        raise Refused(f"Erlang could not be asked about the tailnet ({error})") from None


def _chosen(found: Examination, options: JoinOptions) -> None:
    """Without Tailscale: the person says where the others are, and maybe which interface."""
    found.peers = list(options.peers or [])
    try:
        host = options.address or (toward(found.peers[0]) if found.peers else None)
    except OSError as error:
        text = f"no way to {found.peers[0]} ({error.strerror})"
        found.add("address", "bad", text, "ADDRESS=this machine's own address")
        return
    if host is None:
        found.add("address", "bad", "no peer and no address was named", "ADDRESS=...")
    elif not present_here(host):
        found.add("address", "bad", f"{host} is no address of this machine", "ip -brief address")
    else:
        found.host, found.tls = host, not is_loopback(host)
        found.peers = [peer for peer in found.peers if peer != host]
        _warn_of(found, host, options.address is not None)


def _warn_of(found: Examination, host: str, named: bool) -> None:
    """An address that strangers may reach is taken only when it was named, and told always."""
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        found.add("address", "ok", f"{host}: only nodes on this machine can join")
    elif address in TAILNET:
        text = f"{host} is a tailnet's, and joins with TLS on top"
        found.add("address", "warn", text, "with Tailscale running, leave PEERS and ADDRESS out")
    elif address.is_global and not named:
        text = f"{host} can be reached from the internet"
        todo = f"join over a tailnet, or name it if you mean it: ADDRESS={host}"
        found.add("address", "bad", text, todo)
    else:
        text = f"the node will listen at {host}, with TLS, to whoever has the secret"
        found.add("address", "warn", text)


def _port(found: Examination, host: str, port: int, ours: bool) -> None:
    if ours:
        found.add("port", "ok", f"{port} on {host} is this machine's node's own")
        return
    web = (web_host(host), port - WEB_PORT_BELOW)
    for name, (where, number) in (("port", (host, port)), ("web port", web)):
        taken = why_taken(where, number)
        if taken is None:
            found.add(name, "ok", f"{number} on {where} is free")
        else:
            todo = f"ss -ltnp sport = {number}   (or another PORT=..., the same on all machines)"
            found.add(name, "bad", f"{number} on {where} cannot be used: {taken}", todo)


def _others(found: Examination, options: JoinOptions, ours: str | None) -> None:
    """Who listens where a peer would."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = pool.map(lambda peer: _answers(peer, options.port), found.peers)
        found.answering = [p for p, yes in zip(found.peers, answers, strict=True) if yes]
    text = f"{len(found.answering)} of {len(found.peers)} answer on port {options.port}"
    if found.answering:
        found.add("peers", "ok", f"{text}: {_some(found.answering)}")
    elif ours is not None:
        found.add("peers", "ok", f"{text}: this machine is alone so far")
    elif options.peers:
        todo = "start them (make join), or go on: they are tried again and again"
        found.add("peers", "warn", text, todo)
    else:
        found.add("peers", "ok", f"{text}: this machine will be the first")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _some(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _secret(found: Examination, invited: bool) -> None:
    path = secret_file()
    if invited:
        found.add("secret", "ok", "it came with the invitation")
        return
    try:
        Secret.read(path)
        found.add("secret", "ok", f"{path}")
    except FileNotFoundError:
        if found.answering:
            text = f"this machine has none, but {_some(found.answering)} run a cluster"
            found.add("secret", "bad", text, INVITE)
        else:
            found.add("secret", "ok", "none yet: as the first machine this one makes it")
    except Refused as refusal:
        found.add("secret", "bad", str(refusal))
    except OSError as error:
        found.add("secret", "bad", f"{path}: {error.strerror}", INVITE)


def _python(found: Examination, model_dir: Path) -> None:
    """The package checks itself: interpreter, torch, device, weights and their hashes, disk."""
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "baguette", "check", "--json"]
    try:
        done = subprocess.run(
            [*command, str(model_dir)], capture_output=True, timeout=PYTHON_SECONDS, check=False
        )
        said = json.loads(done.stdout)
        found.checks += [Check(**check) for check in said["checks"]]
        found.serves = bool(said["serves"])
    except subprocess.TimeoutExpired:
        text = f"{model_dir} could not be read and hashed within {PYTHON_SECONDS / 60:.0f} minutes"
        found.add("model", "bad", text, "put it on a faster disk")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        found.add("python", "bad", f"the package cannot be run ({error})", "make setup")


def _writable(found: Examination) -> None:
    try:
        RUN.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        found.add("run directory", "bad", f"{RUN}: {error.strerror}", f"make {RUN.parent} yours")
        return
    if os.access(RUN, os.W_OK | os.X_OK):
        found.add("run directory", "ok", str(RUN))
    else:
        found.add("run directory", "bad", f"{RUN} is not yours", f"sudo chown -R $USER {RUN}")
