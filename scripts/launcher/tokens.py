"""Tokens of the HTTP API: a name and what the cluster's key makes of it (docs/decisions/0013).

Every node with the same key knows every token, so no list of them is kept anywhere. `make up` has
one key per checkout; a joined machine derives its key from the cluster's secret, so a token made on
one machine of a cluster is good on all. apps/baguette_web/src/baguette_web_tokens.erl checks them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from launcher.erlang import write_private
from launcher.options import BadOption
from launcher.processes import Refused
from launcher.secret import Secret

DEFAULT_NAME = "default"
_LABEL = b"baguette http token 1:"
_KEY_LABEL = "baguette-http-key-v1"
_KEY = re.compile(r"[0-9a-f]{64}")


def check_name(name: str) -> str:
    """A client's name; BadOption for one that no token can have."""
    if not re.fullmatch(r"[a-z0-9-]{1,32}", name):
        raise BadOption(f"NAME got {name[:40]!r} but expected 1 to 32 of a-z, 0-9 and -")
    return name


def token(name: str, key: bytes) -> str:
    """The token of a client with this name."""
    digest = hmac.digest(key, _LABEL + name.encode(), hashlib.sha256)
    return f"{name}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def checkout_key(run: Path) -> Path:
    """The file of the key of the clusters that `make up` starts here; made when it is first asked.

    Linked into place, so that of two who make it at once both end up with the same one.
    """
    path = run / "http.key"
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        run.chmod(0o700)
        new = run / f"http.key.{secrets.token_hex(8)}"
        write_private(new, secrets.token_hex(32) + "\n")
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    return path


def write_member_key(secret: Secret, run: Path) -> Path:
    """The file of the key of the cluster that has this secret, for this machine's node of it."""
    path = run / "http.key"
    write_private(path, secret.derived(_KEY_LABEL).hex() + "\n")
    return path


def read_key(path: Path) -> bytes:
    """The key in this file; Refused says what is wrong with it."""
    text = path.read_text(encoding="ascii", errors="replace").strip()
    if not _KEY.fullmatch(text):
        raise Refused(f"{path} holds no key: remove it, and `make up` makes another")
    return bytes.fromhex(text)


def token_file(run: Path, name: str = DEFAULT_NAME) -> Path:
    """Where `make token` keeps the token of this name."""
    return run / "tokens" / name


def way_in(run: Path, key: bytes) -> str:
    """How a person comes by a token for nodes with this key."""
    path = token_file(run)
    good = path.exists() and _is(path, token(DEFAULT_NAME, key))
    return f"the token is in {path}" if good else "`make token` prints the token"


def _is(path: Path, made: str) -> bool:
    return hmac.compare_digest(path.read_bytes().strip(), made.encode())


def keep(run: Path, name: str, key: bytes) -> tuple[str, bool]:
    """The token of this name, written to its file; and whether it was there before."""
    made = token(name, key)
    path = token_file(run, name)
    if path.exists() and _is(path, made):
        return made, True
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, made + "\n")
    return made, False
