"""The terminal view of a cluster: what was told of it, and the lines that show it. Pure.

Called by `commands.top`. The clock is an argument. Every word shown came from elsewhere and is made
printable in `remote_tables`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from baguette.commands.remote_tables import (
    NODES,
    Map,
    health_line,
    items,
    mapping,
    maps,
    node_line,
    number,
    snapshot_of,
    step_bar,
    steps,
    with_trips,
    word,
)
from baguette.text import fitted, printable

KEPT_JOBS = 60
KEPT_EVENTS = 1000  # more than a node tells at once, so that none is taken for a new one
RUNNING = ("running", "queued")
Line = tuple[str, str]  # text, and how it is meant: one of STYLES
STYLES = ("plain", "heading", "ready", "degraded", "down", "dim")


@dataclass
class Seen:
    """What was told so far."""

    url: str
    cluster: Map = field(default_factory=dict)
    jobs: dict[str, Map] = field(default_factory=dict)
    events: dict[tuple[str, ...], Map] = field(default_factory=dict)
    trouble: str = ""

    def take(self, name: str, value: Any) -> None:
        """One more event of the stream, or of the feed; what is not shown is passed over."""
        takers: dict[str, Callable[[Any], None]] = {
            "node": self._node,
            "trouble": self._trouble,
            "snapshot": self._snapshot,
            "figures": self._figures,
            "links": self._links,
            "cluster": self._cluster,
            "job": self._job,
            "jobs": self._jobs,
            "log": self._log,
        }
        if name in takers:
            takers[name](value)

    def _node(self, url: str) -> None:
        self.url, self.trouble = url, ""

    def _trouble(self, why: str) -> None:
        self.trouble = why

    def _snapshot(self, value: Any) -> None:
        self.cluster = {"links": self.cluster.get("links"), **mapping(value)}

    def _figures(self, value: Any) -> None:
        now = {str(one.get("node")): one for one in maps(mapping(value).get("nodes"))}
        cards = maps(self.cluster.get("nodes"))
        merged = [{**card, **now.get(str(card.get("node")), {})} for card in cards]
        self.cluster = {**self.cluster, "nodes": merged}

    def _links(self, value: Any) -> None:
        self.cluster = {**self.cluster, "links": mapping(value).get("links")}

    def _cluster(self, value: Any) -> None:
        cluster = mapping(value)
        self._snapshot(snapshot_of(cluster))
        own = maps(cluster.get("events"))  # a node's own, which do not say whose they are
        self._log({"events": [{"node": cluster.get("node"), **event} for event in own]})

    def _log(self, value: Any) -> None:
        """Once each: after every connection a node tells what it has told before."""
        for event in maps(mapping(value).get("events")):
            said = tuple(str(event.get(name)) for name in ("at", "node", "text"))
            self.events.setdefault(said, event)
        while len(self.events) > KEPT_EVENTS:
            del self.events[next(iter(self.events))]

    def _jobs(self, page: Any) -> None:
        for job in reversed(maps(mapping(page).get("data"))):
            self._job(job)

    def _job(self, value: Any) -> None:
        job = mapping(value)
        if isinstance(job.get("id"), str):
            self.jobs[job["id"]] = job
        while len(self.jobs) > KEPT_JOBS:
            over = (i for i, one in self.jobs.items() if one.get("status") not in RUNNING)
            del self.jobs[next(over, next(iter(self.jobs)))]


# What nodes can be sorted by, and how; unknown ones last.
SORTS: dict[str, Callable[[Map], tuple[Any, ...]]] = {
    "node": lambda card: ([(len(part), part) for part in word(card.get("node"), 60).split(".")],),
    "trip": lambda card: _known(card.get("rtt_ms")),
    "use": lambda card: _known(card.get("utilisation"), -1),
    "ms": lambda card: _known(max(_p50s(card), default=None), -1),
}


def _p50s(card: Map) -> list[float]:
    values = [call.get("p50_ms") for call in maps(card.get("calls"))]
    return [value for value in values if isinstance(value, int | float)]


def _known(value: Any, sign: int = 1) -> tuple[bool, float]:
    known = isinstance(value, int | float)
    return not known, sign * value if known else 0.0


def lines(seen: Seen, size: tuple[int, int], sort: str = "node") -> list[Line]:
    """Exactly what fits `size`, columns and rows: nodes, experts, pictures, then events."""
    width, height = size
    shown = [*_head(seen), *_nodes(seen, sort), *_experts(seen, width), *_jobs(seen, height // 3)]
    room = height - len(shown) - 2
    if room > 0 and seen.events:
        shown += [("", "plain"), ("EVENTS", "heading")]
        shown += [_event(event) for event in list(seen.events.values())[-room:]]
    return [(fitted(text, width), style) for text, style in shown[:height]]


def _head(seen: Seen) -> Iterator[Line]:
    state = word(mapping(seen.cluster.get("health")).get("state"), 10)
    count = sum(job.get("status") == "running" for job in seen.jobs.values())
    queued = sum(job.get("status") == "queued" for job in seen.jobs.values())
    yield f"Baguette, as {seen.url} sees it: {count} running, {queued} queued", "plain"
    yield health_line(seen.cluster), state if state in STYLES else "plain"
    if seen.trouble:
        yield printable(seen.trouble), "down"


def _nodes(seen: Seen, sort: str) -> Iterator[Line]:
    yield "", "plain"
    yield NODES, "heading"
    for card in sorted(maps(with_trips(seen.cluster)["nodes"]), key=SORTS[sort]):
        yield node_line(card), "plain" if card.get("self") or card.get("link") == "up" else "down"


def _experts(seen: Seen, width: int) -> Iterator[Line]:
    """Who answers for each, as many beside each other as fit."""
    words = [
        f"E{number(one.get('expert'), 'd')} "
        + ("+".join(word(name, 16) for name in items(one.get("holders"))) or "NOBODY")
        for one in maps(seen.cluster.get("experts"))
    ]
    wide = max(map(len, words), default=0) + 2
    row = max(width // wide, 1)
    yield "", "plain"
    yield "EXPERTS", "heading"
    for start in range(0, len(words), row):
        part = words[start : start + row]
        style = "down" if any(text.endswith("NOBODY") for text in part) else "plain"
        yield "".join(text.ljust(wide) for text in part).rstrip(), style


def _jobs(seen: Seen, room: int) -> Iterator[Line]:
    """Those that run and wait first, then those that ended last."""
    jobs = list(seen.jobs.values())[::-1]
    rank = {name: place for place, name in enumerate(RUNNING)}
    jobs.sort(key=lambda job: rank.get(str(job.get("status")), len(rank)))
    yield "", "plain"
    yield "PICTURES", "heading"
    for job in jobs[: max(room, 1)]:
        style = "plain" if job.get("status") in RUNNING else "dim"
        yield _job(job), "down" if job.get("status") == "failed" else style


def _job(job: Map) -> str:
    prompt = mapping(job.get("request")).get("prompt")
    seconds = number(job.get("seconds"), ".1f")
    return (
        f"{word(job.get('status'), 10):<10} {step_bar(job)} {steps(job):>8} {seconds:>7} s "
        f"{word(job.get('client'), 12):<12} {word(job.get('id'), 26):<26} {printable(prompt, 60)}"
    )


def _event(event: Map) -> Line:
    at = event.get("at")
    known = isinstance(at, int | float) and 0 <= at < 1 << 33
    clock = time.strftime("%H:%M:%S", time.localtime(at)) if known else "-"
    level = event.get("level")
    style = {"error": "down", "warning": "degraded"}.get(str(level), "plain")
    return f"{clock} {word(event.get('node'), 16):<16} {printable(event.get('text'))}", style
