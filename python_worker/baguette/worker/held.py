"""The experts an expert worker holds, what is known of their speed, and the probing of the rest.

Called by `expert_entry`. Probing goes in short steps, because asks wait for the one that runs; a
component that comes or goes starts it anew, and what is known already is not measured again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import torch

from baguette import probe
from baguette.device import compute_device
from baguette.families.paris.expert import PreparedExpert
from baguette.families.paris.rehearsal import Rehearsal
from baguette.kept import Kept
from baguette.worker.cores import give_way_before
from baguette.worker.state import forget_peak, keep_peak

BATCHES = (1, 4, 16)
ROWS = (2, 4, 8)
# Of so many calls the fastest counts; fewer say nothing.
_RECENT = 32


class Held:
    """One loaded expert, and of which kind it is: all of one kind are equally fast."""

    def __init__(self, expert: PreparedExpert, tokens: int) -> None:
        self.expert = expert
        self.rehearsal = Rehearsal(expert, tokens)
        module = expert.module
        give_way_before(module.layers)
        weights = [(n, tuple(p.shape), str(p.dtype)) for n, p in module.named_parameters()]
        what = repr((sorted(weights), module.config.image_size, tokens))
        self.kind = hashlib.sha256(what.encode()).hexdigest()


class Served:
    """What real calls took: microseconds per image, the least of the last canonical calls.

    The least, as in `probe.call_us`: what waits for the device is told apart, as a queue.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def image(self, micros: int) -> None:
        """One canonical call took so long."""
        self._recent.append(micros)

    def to_map(self) -> dict[str, int]:
        """For `stats`; image_us is 0 until there were enough calls for one without a hitch."""
        enough = len(self._recent) == _RECENT
        return {"calls": self.calls, "image_us": min(self._recent) if enough else 0}


class Explorer:
    """Measures what is not known, one short step a call."""

    def __init__(self) -> None:
        self._steps: Generator[None, None, None] | None = None

    def restart(self) -> None:
        """What is held has changed: look again from the start."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None

    def step(self, held: dict[str, Held], kept: Kept) -> bool:
        """Do one piece of work; True when there is nothing left to measure."""
        if self._steps is None:
            self._steps = _explore(dict(held), kept)
        try:
            next(self._steps)
            return False
        except StopIteration:
            self._steps = None
            return True


def _explore(held: dict[str, Held], kept: Kept) -> Generator[None, None, None]:
    yield from _machine(kept)
    for name in sorted(held):
        one = held[name]
        if "quiet" not in kept.component(one.kind):
            yield from _again(one, kept)
        for batch in BATCHES:
            yield from measure(one, batch, kept)
        if "rows_equal" not in kept.component(one.kind):
            one_us = kept.component(one.kind)["call_us"]["1"]
            equal = yield from probe.rows_equal(one.rehearsal, ROWS, one_us)
            kept.put_component(one.kind, rows_equal=equal)
        one.rehearsal.end()


def _machine(kept: Kept) -> Generator[None, None, None]:
    device, cpu = compute_device(), torch.device("cpu")
    if "matmul_gflops" not in kept.machine():
        gflops = yield from probe.matmul_gflops(device)
        kept.put_machine(matmul_gflops=gflops)
    if "cpu_gflops" not in kept.machine():
        same = device == cpu
        gflops = kept.machine()["matmul_gflops"] if same else (yield from probe.matmul_gflops(cpu))
        kept.put_machine(cpu_gflops=gflops)
    if "memory_mib_s" not in kept.machine():
        # Its buffers are larger than anything a small expert needs.
        keep_peak()
        try:
            rate = yield from probe.memory_mib_s(device)
        finally:
            forget_peak()
            if device.type == "cuda":  # or its buffers stay with torch
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
        kept.put_machine(memory_mib_s=rate)


def measure(one: Held, batch: int, kept: Kept) -> Generator[None, None, None]:
    """Time a call with `batch` rows, unless that is known or would take too long."""
    known = kept.component(one.kind)
    times, skipped = known.get("call_us", {}), known.get("skipped", [])
    if str(batch) in times or batch in skipped:
        return
    if batch * times.get("1", 0) > probe.SLOW_US and batch > 1:
        kept.put_component(one.kind, skipped=sorted({*skipped, batch}))
        return
    micros = yield from probe.call_us(one.rehearsal, batch)
    kept.put_component(one.kind, call_us={**times, str(batch): micros})


def _again(one: Held, kept: Kept) -> Generator[None, None, None]:
    """One image once more, in quiet: at the first time half the machine may have been starting."""
    before = kept.component(one.kind).get("call_us", {})
    micros = yield from probe.call_us(one.rehearsal, 1)
    least = min(micros, before.get("1", micros))
    kept.put_component(one.kind, call_us={**before, "1": least}, quiet=1)


def at_once(steps: Iterator[None]) -> None:
    """Take every step now."""
    for _ in steps:
        pass


def speed(held: dict[str, Held], kept: Kept) -> dict[str, Any]:
    """All that is known: of several components the slowest call, and the rows equal in each."""
    known = [kept.component(held[name].kind) for name in sorted(held)]
    batches = sorted({n for one in known for n in one.get("call_us", {})}, key=int)
    slowest = {n: max(one.get("call_us", {}).get(n, 0) for one in known) for n in batches}
    equal = [set(one.get("rows_equal", ())) for one in known]
    skipped = {n for one in known for n in one.get("skipped", ())}
    return {
        "device": compute_device().type,
        **kept.machine(),
        "call_us": slowest,
        "skipped": sorted(skipped),
        "rows_equal": sorted(set.intersection(*equal)) if equal else [],
    }
