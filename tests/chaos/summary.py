"""One line of figures about a history, for whoever looks on and for docs/RELIABILITY.md. Pure."""

from __future__ import annotations

from collections import Counter

from chaos.history import Entry


def summary(entries: list[Entry]) -> str:
    """How many pictures ended how, what was asked again, and the longest that nothing was told."""
    ends = Counter(e.get("state", e["what"]) for e in entries if e["what"] in ("end", "refused"))
    events = Counter(e["event"] for e in entries if e["what"] == "event")
    twins = [e for e in entries if e["what"] == "twin"]
    gap, generation = longest_gap(entries)
    parts = [f"{count} {state}" for state, count in sorted(ends.items())]
    parts += [f"{len(twins)} held to their twins"]
    farthest = max((by for e in twins for by in e.get("differs_by", [])), default=None)
    if farthest is not None:
        parts.append(f"farthest by {farthest} of 255")
    parts += [f"{events[kind]} {kind}" for kind in ("failover", "hedge", "waiting")]
    parts.append(f"longest silence {gap:.1f} s ({generation})")
    return ", ".join(parts)


def longest_gap(entries: list[Entry]) -> tuple[float, str]:
    """The longest time in which an accepted generation told nothing, and which one it was."""
    last: dict[str, float] = {}
    longest = (0.0, "none")
    for entry in entries:
        name = entry.get("generation")
        if name is None or entry["what"] not in ("accepted", "event", "end"):
            continue
        if name in last:
            longest = max(longest, (round(entry["at"] - last[name], 3), name))
        last[name] = entry["at"]
    return longest
