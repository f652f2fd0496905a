"""This machine's addresses and ports: which there are, which are free, which lead where.

Nothing here sends a byte. Used by the doctor, the options of `make join` and the local cluster.
"""

from __future__ import annotations

import ipaddress
import socket

DEFAULT_PORT = 9100
WEB_PORT_BELOW = 1000  # a node's HTTP port is so much below the port of the distribution
TAILNET = ipaddress.ip_network("100.64.0.0/10")


def is_loopback(address: str) -> bool:
    return ipaddress.IPv4Address(address).is_loopback


def toward(peer: str) -> str:
    """This machine's own address on the way to `peer`; OSError where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return str(probe.getsockname()[0])


def present_here(address: str) -> bool:
    """Whether a socket can be bound to it."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def why_taken(host: str, port: int) -> str | None:
    """Why a socket cannot listen there; None when it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return str(error.strerror)
        return None


def web_host(host: str) -> str:
    """Where the node at `host` answers HTTP: its own address where the way there is private.

    A token travels in clear text, so on any other network only this machine is answered.
    """
    private = is_loopback(host) or ipaddress.IPv4Address(host) in TAILNET
    return host if private else "127.0.0.1"
