"""Which node a command means, and the token it is asked with.

Called by the commands that ask a node over HTTP. A token is never on a command line, where every
user of a machine could read it, and goes over plain HTTP only where nobody listens in between:
loopback and the tailnet, which is where nodes listen.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from baguette.checkout import REPOSITORY
from baguette.errors import BadInput, ClusterRefused

WEB_PORT = 8100
TAILNET = ipaddress.ip_network("100.64.0.0/10")
NODE, TOKEN = "BAGUETTE_NODE", "BAGUETTE_TOKEN"
MAX_TOKEN, MAX_RECORD = 512, 1 << 20
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Place:
    """Where a node answers HTTP."""

    host: str
    port: int
    tls: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}"


@dataclass(frozen=True)
class Token:
    """What is shown to the node, and where it was found."""

    text: str
    source: str

    def __repr__(self) -> str:
        return f"Token(from {self.source})"  # no traceback shows it


def read_place(option: str, text: str) -> Place:
    """HOST, HOST:PORT or a URL; BadInput begins with the option."""
    wrong = BadInput(
        f"{option} got {text[:80]!r} but expected a node's address, e.g. "
        f"http://127.0.0.2:{WEB_PORT}"
    )
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if more or parts.scheme not in ("http", "https") or port == 0 or not _is_host(host):
        raise wrong
    tls = parts.scheme == "https"
    return Place(host, port or (443 if tls else WEB_PORT), tls)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST.fullmatch(host) is not None and not host.replace(".", "").isdigit()
    return True


def given_place(named: str | None) -> Place:
    """The node of --node, of BAGUETTE_NODE, or of the cluster that runs in this checkout."""
    if named is not None:
        return read_place("--node", named)
    if os.environ.get(NODE):
        return read_place(NODE, os.environ[NODE])
    place = next(_of_this_checkout(), None)
    if place is None:
        raise BadInput(
            f"no node is named and no cluster of `make up` runs here: give --node HOST:PORT or set "
            f"{NODE}"
        )
    return place


def given_token(file: Path | None, place: Place) -> Token | None:
    """The token of --token-file, of BAGUETTE_TOKEN, or of the file where tokens usually lie."""
    if file is not None:
        return _read_token(file)
    if os.environ.get(TOKEN):
        return _checked(os.environ[TOKEN], TOKEN)
    usual = [usual_file()]
    if place in _of_this_checkout():  # tokens for its nodes lie in it
        usual.insert(0, _run() / "tokens" / "default")
    found = next((path for path in usual if path.is_file()), None)
    return None if found is None else _read_token(found)


def usual_file() -> Path:
    """Where a person's token lies."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "baguette" / "token"


def check_way(place: Place, peer: str) -> None:
    """Refuse to show a token in clear text to `peer`, a socket's own peer address."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if not (place.tls or address.is_loopback or address in TAILNET):
        raise ClusterRefused(
            f"the token would cross the network in clear text to {address}: name the node by its "
            f"tailnet address, or go through `ssh -L {place.port}:127.0.0.1:{place.port} ...`"
        )


def _read_token(path: Path) -> Token:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_TOKEN + 2)
    except OSError as error:
        raise BadInput(f"the token file {str(path)!r} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise BadInput(f"the token file {str(path)!r} may be read by others: chmod 600 it")
    return _checked(content.decode("ascii", errors="replace").strip(), f"the file {path}")


def _checked(text: str, source: str) -> Token:
    if not re.fullmatch(rf"[!-~]{{1,{MAX_TOKEN}}}", text):
        raise BadInput(f"{source} holds no token; `make token` on the node's machine prints one")
    return Token(text, source)


def _run() -> Path:
    """Where the launcher of this checkout keeps what runs."""
    return Path(os.environ.get("BAGUETTE_RUN") or REPOSITORY / "run")


def _of_this_checkout() -> Iterator[Place]:
    """The living nodes with HTTP of its clusters, by the launcher's own records."""
    for path in sorted(_run().glob("*/cluster.json")):
        try:
            record = json.loads(path.read_bytes()[:MAX_RECORD])
            nodes, port = record["nodes"], record.get("web_port")
            alive = [str(node["node"]) for node in nodes if _alive(node["pid"])]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path} cannot be read ({error}): remove it by hand") from None
        for name in alive if isinstance(port, int) else ():
            yield Place(name.rpartition("@")[2], port)


def _alive(pid: Any) -> bool:
    """Whether this person has such a process: a port alone could have become another's."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
