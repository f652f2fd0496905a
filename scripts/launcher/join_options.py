"""What `make join` and its sisters are told: read from the environment, checked before anything."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.addresses import DEFAULT_PORT, is_loopback
from launcher.options import ROOT, BadOption, read_path, read_whole

MAX_PEERS = 64
MAX_NAME = 253  # of a host, RFC 1035


@dataclass(frozen=True)
class JoinOptions:
    """`peers` None: ask Tailscale. `secret`: "-" (read it from standard input), "new" or None."""

    peers: list[str] | None
    address: str | None
    port: int
    model_dir: Path
    secret: str | None
    tailscale: str
    foreground: bool

    @classmethod
    def read(cls, env: Mapping[str, str]) -> JoinOptions:
        """Every option that is set; BadOption names the one that cannot be used."""
        peers = _peers(env["PEERS"]) if "PEERS" in env else None
        address = _address(env["ADDRESS"]) if env.get("ADDRESS") else None
        if peers is None and address is not None:
            peers = []  # an address of one's own choice is no tailnet's
        secret = env.get("SECRET") or None
        if secret not in (None, "-", "new"):
            raise BadOption(
                "SECRET is new, or - to read it from standard input as the line of `make invite` "
                "does; a secret itself must not stand on a command line"
            )
        return cls(
            peers=peers,
            address=address,
            port=read_whole("PORT", env["PORT"], 2024, 65535) if "PORT" in env else DEFAULT_PORT,
            model_dir=(ROOT / read_path("MODEL", env.get("MODEL", _model()))).resolve(),
            secret=secret,
            tailscale=env.get("TAILSCALE") or "tailscale",
            foreground=bool(env.get("FOREGROUND")),
        )


def _model() -> str:
    """The published model where it was fetched, else the small one of this repository."""
    full = "weights/paris"
    return full if (ROOT / full / "config.json").exists() else "weights/paris-mini"


def _peers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) > MAX_PEERS:
        raise BadOption(f"PEERS names {len(names)} machines but expected at most {MAX_PEERS}")
    found = [_resolved(name) for name in names]
    return list(dict.fromkeys(address for address in found if address is not None))


def _resolved(name: str) -> str | None:
    """The IPv4 address of a host; an address is its own; None for this machine's own name.

    Debian lets a machine's own name be 127.0.1.1.
    """
    try:
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name[:MAX_NAME], None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BadOption(
            f"PEERS: {name[:80]!r} has no IPv4 address ({error}); give the address itself"
        ) from None
    address = str(found[0][4][0])
    return None if is_loopback(address) else address


def _address(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text.strip())
    except ValueError:
        raise BadOption(f"ADDRESS got {text[:40]!r} but expected an IPv4 address") from None
    if address.is_unspecified or address.is_multicast:
        raise BadOption(
            f"ADDRESS {address} is no address of one interface: name this machine's own"
        )
    return str(address)


def from_environment(command: str) -> JoinOptions:
    """Who leaves need not say, or resolve, whom to join."""
    kept = ("ADDRESS", "PORT") if command in ("leave", "invite") else tuple(os.environ)
    return JoinOptions.read({name: os.environ[name] for name in kept if name in os.environ})
