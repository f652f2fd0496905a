"""What a node says in its own log (docs/internals/events.md), for programs that measure or test.

Nothing is asked of a node while it is watched this way; times are of its own clock, to the
millisecond.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any


def events(log: Path) -> Iterator[dict[str, Any]]:
    """What the node itself has said so far; its workers' lines are not."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # a line of something else, or half a line
            event = json.loads(line)
            if isinstance(event, dict) and "node" in event:
                yield event


def seconds(event: dict[str, Any]) -> float:
    """When it was said, since 1970."""
    return datetime.fromisoformat(event["at"]).timestamp()


def first_said(log: Path, what: str, peer: str, state: str, since: float) -> float | None:
    """When it first said that a peer (its Erlang name) is so, after that moment if it did.

    `what` is "link" or "member".
    """
    wanted = (what, peer.partition("@")[2], state)
    for event in events(log):
        facts = event.get("facts", {})
        if (event["what"], facts.get("peer"), facts.get("state")) == wanted:
            at = seconds(event)
            if at >= since:
                return at
    return None
