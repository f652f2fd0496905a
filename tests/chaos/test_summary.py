"""The figures of a history, counted from made-up entries."""

from __future__ import annotations

from chaos.summary import longest_gap, summary

ENTRIES = [
    {"at": 0.0, "what": "plan"},
    {"at": 1.0, "what": "invoke", "generation": "g0"},
    {"at": 5.0, "what": "accepted", "generation": "g0"},
    {"at": 5.5, "what": "event", "generation": "g0", "event": "step"},
    {"at": 6.0, "what": "accepted", "generation": "g1"},
    {"at": 7.0, "what": "event", "generation": "g0", "event": "failover"},
    {"at": 7.2, "what": "end", "generation": "g0", "state": "done"},
    {"at": 8.5, "what": "end", "generation": "g1", "state": "cancelled"},
    {"at": 9.0, "what": "refused", "generation": "g2"},
    {"at": 9.5, "what": "twin", "generation": "g0", "differs_by": [0, 1]},
]


def test_the_longest_gap_is_of_one_generation_and_only_while_it_runs() -> None:
    assert longest_gap(ENTRIES) == (2.5, "g1")
    assert longest_gap(ENTRIES[:3]) == (0.0, "none")


def test_what_ended_how_is_counted() -> None:
    assert summary(ENTRIES) == (
        "1 cancelled, 1 done, 1 refused, 1 held to their twins, farthest by 1 of 255, "
        "1 failover, 0 hedge, 0 waiting, longest silence 2.5 s (g1)"
    )
