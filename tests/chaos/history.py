"""What was done and what came of it, one JSON line each, in order, with seconds since the start.

Written as it happens, so a run that ends badly leaves what it had. Clients and faults of a run
share one; the faults also wait here for a generation to come to a step. Its kinds of entries:

    plan       the whole schedule                        fault / healed / missed   a fault's life
    invoke     generation, client, node, request         before / after   figures of the nodes
    accepted   generation, id                            settled / unsettled   all is well again
    refused    generation, name, sentence                gone   a node that left, what it left
    event      generation, event, step, and more         processes   what is there at the end
    cancel     generation                                twin   an undisturbed picture beside it
    end        generation, state, images, routing        broken   the runner itself
    lost       generation: no end came                   stray   an event of no open generation
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

Entry = dict[str, Any]
ENDED = 1 << 30  # a step that no generation has


class History:
    """Entries so far, on disk as well. A context manager; threads may share it."""

    def __init__(self, path: Path, tell: Callable[[str], None] = lambda line: None) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._tell = tell
        self._begun = time.monotonic()
        self._changed = threading.Condition()
        self._steps: dict[str, int] = {}
        self._asked: dict[str, list[int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")

    def append(self, what: str, **facts: Any) -> Entry:
        """Record it, now."""
        with self._changed:
            entry = {"at": round(time.monotonic() - self._begun, 3), "what": what, **facts}
            self.entries.append(entry)
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
            self._note(entry)
            self._changed.notify_all()
            line = sentence(entry)
            if line:
                self._tell(f"{entry['at']:7.2f} s  {line}")
            return entry

    def _note(self, entry: Entry) -> None:
        if entry["what"] == "event" and entry["event"] == "step":
            self._steps[entry["generation"]] = entry["step"]
            self._asked[entry["generation"]] = entry["asked"]
        elif entry["what"] in ("end", "refused", "lost"):
            self._steps[entry["generation"]] = ENDED

    def reached(self, generation: str, step: int, seconds: float) -> bool:
        """Wait until that generation is at that step or over; False when it never came there."""
        with self._changed:
            return self._changed.wait_for(lambda: self._steps.get(generation, 0) >= step, seconds)

    def asked(self, generation: str) -> list[int]:
        """The nodes asked at its last step, by expert."""
        with self._changed:
            return self._asked.get(generation, [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def read(path: Path) -> list[Entry]:
    """The entries of a history file."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def sentence(entry: Entry) -> str:
    """An entry for whoever looks on; empty for what happens all the time."""
    what, name = entry["what"], entry.get("generation", entry.get("fault", ""))
    if what == "event" and entry["event"] in ("failover", "waiting", "degraded"):
        facts = {k: v for k, v in entry.items() if k not in ("at", "what", "generation", "event")}
        return f"{name}: {entry['event']} {facts}"
    tellers: dict[str, Callable[[], str]] = {
        "invoke": lambda: f"{name}: asked of node {entry['node']}: {_short(entry['request'])}",
        "refused": lambda: f"{name}: refused, {entry['sentence']}",
        "cancel": lambda: f"{name}: taken back",
        "end": lambda: f"{name}: {entry['state']} {entry.get('name') or ''}",
        "lost": lambda: f"{name}: no end came",
        "fault": lambda: f"{name}: {entry['kind']} node {entry['node']}, {entry['seconds']} s",
        "healed": lambda: f"{name}: healed",
        "missed": lambda: f"{name}: nothing to strike there",
        "settled": lambda: f"all is well again after {entry['seconds']} s",
        "unsettled": lambda: f"NOT well again: {entry['why']}",
        "broken": lambda: f"the runner broke: {entry['why']}",
        "stray": lambda: f"STRAY {entry['event']}",
    }
    return tellers[what]() if what in tellers else ""


def _short(request: dict[str, Any]) -> str:
    return f"n={request['n']}, {request['steps']} steps, top_k {request['top_k']}"
