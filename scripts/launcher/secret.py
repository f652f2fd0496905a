"""The secret of a cluster: 256 bits that its machines share, and what is derived from them.

Made on the first machine, carried to the next by a person (`make invite`). It is a file of mode
0400 in the person's configuration directory, so that it outlives this checkout; it is never on a
command line nor in an environment. What the cluster uses are keys derived from it (HMAC-SHA256
under a label each), never the secret itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from launcher.erlang import write_private
from launcher.processes import Refused

_PREFIX = "baguette-"  # a person sees what the line is for; a reader, that it is whole
_PATTERN = re.compile(_PREFIX + r"([0-9a-f]{64})-([0-9a-f]{8})")


@dataclass(frozen=True, repr=False)
class Secret:
    """256 bits. Never printed but by `text`, which `make invite` asks for."""

    key: bytes

    @classmethod
    def new(cls) -> Secret:
        return cls(secrets.token_bytes(32))

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Read what `text` gave; Refused for anything else, a mistyped character included."""
        match = _PATTERN.fullmatch(text.strip())
        if match is not None:
            secret = cls(bytes.fromhex(match[1]))
            if hmac.compare_digest(secret._check(), match[2]):
                return secret
        raise Refused(
            "this is no secret of a cluster: copy the whole line that `make invite` printed"
        )

    @classmethod
    def read(cls, path: Path) -> Secret:
        """The one in this file; Refused when others could read it, FileNotFoundError without it."""
        found = path.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(
                f"{path} must belong to you and be readable by nobody else: chmod 0400 it, and if "
                "others may have read it, make another (SECRET=new) and invite every machine again"
            )
        try:
            return cls.parse(path.read_text(encoding="ascii"))
        except (Refused, UnicodeDecodeError):
            raise Refused(
                f"{path} holds no secret: move it away and join by an invitation"
            ) from None

    def write(self, path: Path) -> Path | None:
        """Mode 0400, in a directory of mode 0700. Another one that was there is kept: its place."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = None
        if path.exists() and path.read_bytes().strip() != self.text().encode():
            aside = path.with_name(f"secret.{time.strftime('%Y%m%d-%H%M%S')}")
            path.replace(aside)
        write_private(path, self.text() + "\n")
        return aside

    def text(self) -> str:
        """One line that `parse` reads."""
        return f"{_PREFIX}{self.key.hex()}-{self._check()}"

    def cookie(self) -> str:
        """The cookie of the distribution: 256 bits in 64 hex digits."""
        return self.derived("distribution cookie").hex()

    def derived(self, label: str) -> bytes:
        """32 bytes that depend on the secret and the label only."""
        return hmac.digest(self.key, f"baguette 1 {label}".encode(), hashlib.sha256)

    def _check(self) -> str:
        return hashlib.sha256(b"baguette check " + self.key).hexdigest()[:8]


def secret_file() -> Path:
    """Where this person's secret lies: SECRET_FILE, else the configuration directory."""
    given = os.environ.get("SECRET_FILE")
    if given:
        return Path(given)
    try:
        base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    except RuntimeError:
        raise Refused("this user has no home directory: SECRET_FILE=... says where") from None
    return Path(base) / "baguette" / "secret"
