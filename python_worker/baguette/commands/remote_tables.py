"""What a node says of its cluster and its jobs, as lines for people. Pure.

Called by `commands.remote` and `commands.top`. Every word came from elsewhere and is made printable
here; a value of another kind than expected shows as "-".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from baguette.remote.node import Node
from baguette.text import printable

Map = Mapping[str, Any]
PROMPT, ID, BAR = 40, 26, 12
UNKNOWN = "-"


def job_lines(jobs: Sequence[Map]) -> list[str]:
    """A heading and a line per job."""
    if not jobs:
        return ["no jobs here yet: `python -m baguette remote generate PROMPT` asks for one"]
    heading = f"{'JOB':<{ID}} {'STATUS':<10} {'STEP':>8} {'SECONDS':>8} {'CLIENT':<12} PROMPT"
    return [heading, *(_job(job) for job in jobs)]


def _job(job: Map) -> str:
    request = mapping(job.get("request"))
    return (
        f"{printable(job.get('id'), 60):<{ID}} {word(job.get('status'), 10):<10} {steps(job):>8} "
        f"{number(job.get('seconds'), '.1f'):>8} {word(job.get('client'), 12):<12} "
        f"{printable(request.get('prompt'), PROMPT)}"
    )


def steps(job: Map) -> str:
    """Of how many how many are done."""
    return f"{number(job.get('step'), 'd')}/{number(job.get('steps'), 'd')}"


def step_bar(job: Map, width: int = BAR) -> str:
    """The same as a bar."""
    done, total = job.get("step"), job.get("steps")
    full = 0
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        full = min(max(width * done // total, 0), width)
    return "█" * full + "░" * (width - full)


def cluster_lines(node: Node, cluster: Map) -> Iterator[str]:
    """Its health, a line per node, a line per expert."""
    snapshot = snapshot_of(cluster)
    yield f"{health_line(snapshot)}, as {node.url} sees it"
    yield ""
    yield NODES
    yield from (node_line(card) for card in maps(snapshot.get("nodes")))
    yield ""
    for expert in maps(cluster.get("experts")):
        holders = ", ".join(word(name, 60) for name in items(expert.get("holders")))
        yield f"E{number(expert.get('expert'), 'd'):<4} {holders or 'nobody: it cannot be asked'}"


def health_line(cluster: Map) -> str:
    """READY, DEGRADED or DOWN, and the first reason."""
    health = mapping(cluster.get("health"))
    reasons = [printable(reason.get("detail")) for reason in maps(health.get("reasons"))]
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    state = word(health.get("state"), 10).upper()
    return f"{state}: {reasons[0].rstrip('.')}{more}" if reasons else state


NODES = (
    f"{'NODE':<16} {'LINK':<8} {'TRIP ms':>8} {'MEMORY MiB':>15} {'USE %':>6} {'p50/p95 ms':>13} "
    f"{'EXPERTS':<12} DEVICE"
)


def node_line(card: Map) -> str:
    """One node, as the dashboard's card has it."""
    memory = mapping(card.get("memory"))
    mib = f"{number(memory.get('used_mib'), '.0f')}/{number(memory.get('total_mib'), '.0f')}"
    used = card.get("utilisation")
    percent = number(100 * used if isinstance(used, int | float) else None, ".0f")
    calls = maps(card.get("calls"))
    tail = f"{_largest(calls, 'p50_ms')}/{_largest(calls, 'p95_ms')}"
    return (
        f"{word(card.get('node'), 16):<16} {link(card):<8} {number(card.get('rtt_ms'), '.2f'):>8} "
        f"{mib:>15} {percent:>6} {tail:>13} {experts(card):<12} {word(card.get('device'), 40)}"
    )


def link(card: Map) -> str:
    """How we reach it."""
    if card.get("self") is True:
        return "itself"
    return "leaving" if card.get("leaving") is True else word(card.get("link"), 8)


def experts(card: Map) -> str:
    """Those it has; the state in brackets where that is not ready."""
    return " ".join(
        f"E{number(one.get('expert'), 'd')}"
        + ("" if one.get("state") == "ready" else f"({word(one.get('state'), 9)})")
        for one in maps(card.get("experts"))
    )


def snapshot_of(cluster: Map) -> dict[str, Any]:
    """/v1/cluster in the shape of the stream's `snapshot`, as far as it goes."""
    experts = maps(cluster.get("experts"))
    components = {str(one.get("component")): one.get("expert") for one in experts}
    return {
        **cluster,
        "health": {"state": cluster.get("state"), "reasons": cluster.get("reasons")},
        "nodes": [_card(node, components) for node in maps(cluster.get("nodes"))],
    }


def _card(node: Map, components: Map) -> dict[str, Any]:
    report = mapping(node.get("report"))
    facts = mapping(report.get("facts"))
    now, hardware = mapping(facts.get("device_now")), mapping(facts.get("hardware"))
    held = [
        {"expert": components[name], "state": one.get("state")}
        for one in maps(report.get("components"))
        if isinstance(name := one.get("component"), str) and name in components
    ]
    return {
        **node,
        "device": now.get("name") or hardware.get("gpu") or hardware.get("cpu"),
        "memory": {"used_mib": now.get("used_mib"), "total_mib": now.get("memory_mib")},
        "utilisation": now.get("utilisation"),
        "experts": [one for one in held if one["state"] not in (None, "idle")],
    }


def with_trips(snapshot: Map) -> dict[str, Any]:
    """The snapshot with each node's round trip, as the node that tells measured it, in its card."""
    rows = [row for row in maps(snapshot.get("links")) if row.get("from") == snapshot.get("node")]
    links = [link for row in rows for link in maps(row.get("to"))]
    trips = {str(one.get("node")): one.get("rtt_ms") for one in links}
    cards = maps(snapshot.get("nodes"))
    return {**snapshot, "nodes": [{"rtt_ms": trips.get(str(c.get("node"))), **c} for c in cards]}


def _largest(calls: Sequence[Map], name: str) -> str:
    values = [call[name] for call in calls if _is_number(call.get(name))]
    return number(max(values, default=None), ".0f")


def number(value: Any, form: str) -> str:
    """A number in this form; anything else is unknown."""
    whole = form == "d"
    if not _is_number(value) or (whole and not isinstance(value, int)):
        return UNKNOWN
    return printable(format(value, form), 12)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def word(value: Any, limit: int) -> str:
    """A few words; anything else is unknown."""
    return printable(value, limit) if isinstance(value, str) and value else UNKNOWN


def mapping(value: Any) -> Map:
    """A map; nothing of anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """A list; nothing of anything else."""
    return value if isinstance(value, list) else []


def maps(value: Any) -> list[Map]:
    """The maps of a list."""
    return [one for one in items(value) if isinstance(one, dict)]
