"""Calls that came as one frame: computed together where they may be, each with its own answer.

Called by the entry points that take several calls. What one call does wrong, or what goes wrong
for it alone, is its own failure and nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import accumulate
from typing import Protocol, TypeVar

from baguette.errors import DeviceLost, OutOfMemory, port_class
from baguette.worker.spent import spent

Answer = bytes | Exception
"""What one call of several gets: its payload, or why there is none."""


class InCompany(Protocol):
    """A call that was read: `canonical` ones have the same bytes in any company, so they get none.

    Calls of one `group` may be computed together.
    """

    @property
    def canonical(self) -> bool: ...

    @property
    def group(self) -> Hashable: ...


A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C", bound=InCompany)


def answers(
    payloads: Sequence[bytes],
    read: Callable[[bytes], C],
    compute: Callable[[Sequence[C]], Sequence[B]],
    write: Callable[[C, B], bytes],
) -> list[Answer]:
    """Each call's answer, in order: read alone, computed in groups, written alone."""
    calls = [_attempt(read, payload) for payload in payloads]
    spent.mark("unpack")
    groups: dict[Hashable, list[int]] = {}
    for i, call in enumerate(calls):
        if not isinstance(call, Exception):
            groups.setdefault(i if call.canonical else (call.group,), []).append(i)
    done: dict[int, Answer] = {}
    for group in groups.values():
        asked = [call for i in group if not isinstance(call := calls[i], Exception)]
        results = _computed(compute, asked)
        spent.mark("compute")
        for i, call, result in zip(group, asked, results, strict=True):
            done[i] = _attempt(partial(write, call), result)
        spent.mark("pack")
    return [call if isinstance(call, Exception) else done[i] for i, call in enumerate(calls)]


def _attempt(function: Callable[[A], B], value: A | Exception) -> B | Exception:
    if isinstance(value, Exception):
        return value
    try:
        return function(value)
    except Exception as error:  # the boundary between one call and its company
        return error


def _computed(
    compute: Callable[[Sequence[A]], Sequence[B]], calls: Sequence[A]
) -> list[B | Exception]:
    """All at once; in halves where memory ends; each alone where anything else goes wrong."""
    try:
        return list(compute(calls))
    except Exception as error:  # the same boundary
        failed = port_class(error)
        if len(calls) == 1 or failed == DeviceLost.name:
            return [error for _ in calls]
    size = (len(calls) + 1) // 2 if failed == OutOfMemory.name else 1
    parts = [calls[begin : begin + size] for begin in range(0, len(calls), size)]
    return [result for part in parts for result in _computed(compute, part)]


def only(several: Sequence[Answer]) -> bytes:
    """The answer of the only call, or its failure raised."""
    (answer,) = several
    if isinstance(answer, Exception):
        raise answer
    return answer


def split(values: Sequence[A], counts: Sequence[int]) -> list[Sequence[A]]:
    """As many of the values to each as it counts, in order."""
    return [
        values[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)
    ]
