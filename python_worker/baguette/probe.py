"""How fast this machine and one component are, in pieces short enough to wait for.

Every probe is an iterator that yields after a short piece of work - one matmul, one copy, one
call - so that whoever asks for real work waits for one piece at most; it returns its figure.
Called by the expert worker. Whole numbers only: GFLOPS, MiB/s, microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from baguette.device import compute_device

SAMPLES = 5
CALLS = 3
# One measure ends with the sample that goes over this.
BUDGET_S = 0.25
# A call that takes longer is not made for a probe.
SLOW_US = 1_000_000

_MIB = 1 << 20
_CPU_SIZE, _GPU_SIZE = 768, 4096
_CPU_COPY_MIB, _GPU_COPY_MIB = 32, 256
_PIECE = 8 << 20

Call = Callable[[Sequence[int]], Tensor]
"""One call of a component with these of its rehearsal rows: their answers, (N, ...)."""


def matmul_gflops(device: torch.device) -> Generator[None, None, int]:
    """Rate of a square matmul: fp32 on a CPU, with this process's threads; bf16 on a GPU."""
    on_gpu = device.type == "cuda"
    size = _GPU_SIZE if on_gpu else _CPU_SIZE
    dtype = torch.bfloat16 if on_gpu else torch.float32
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = yield from _samples(lambda: torch.mm(a, b), device)
    return _rate(2 * size**3 / 1e9, seconds)


def memory_mib_s(device: torch.device) -> Generator[None, None, int]:
    """What a large copy moves, reading and writing counted."""
    mib = _GPU_COPY_MIB if device.type == "cuda" else _CPU_COPY_MIB
    source, target = (torch.empty(mib * _MIB, dtype=torch.uint8, device=device) for _ in range(2))
    for piece in (*source.split(_PIECE), *target.split(_PIECE)):
        piece.fill_(1)  # the first touch of a page is what takes time
        yield
    seconds = yield from _samples(lambda: target.copy_(source), device)
    return _rate(2 * mib, seconds)


def call_us(call: Call, batch: int) -> Generator[None, None, int]:
    """Microseconds of one call with `batch` rows: the least of some, a slow one made once only.

    The least, because what else this machine does meanwhile is not the device's doing, and equal
    machines should look equal.
    """
    first = _call_us(call, batch)
    yield
    if first > SLOW_US:  # or was it only the first, which pays for what is loaded once?
        first = min(first, _call_us(call, batch))
    if first > SLOW_US:
        return first
    times = []
    for _ in range(CALLS):
        yield
        times.append(_call_us(call, batch))
    return max(1, min(times))


def rows_equal(call: Call, batches: Sequence[int], one_us: int) -> Generator[None, None, list[int]]:
    """The batch sizes whose every row is bitwise the row computed alone.

    `one_us` is what a call with one row takes; sizes too slow for a probe count as unequal.
    """
    sizes = [batch for batch in batches if batch * one_us <= SLOW_US]
    if not sizes:
        return []
    singles = []
    for row in range(max(sizes)):
        singles.append(call([row])[0])
        yield
    equal = []
    for batch in sizes:
        together = call(range(batch))
        if all(torch.equal(together[i], singles[i]) for i in range(batch)):
            equal.append(batch)
        yield
    return equal


def _call_us(call: Call, batch: int) -> int:
    return int(_seconds(lambda: call(range(batch)), compute_device()) * 1e6)


def _samples(work: Callable[[], object], device: torch.device) -> Generator[None, None, float]:
    """Least seconds of some runs, the first of which pays for set-up and does not count."""
    _seconds(work, device)
    times: list[float] = []
    while len(times) < SAMPLES and sum(times) < BUDGET_S:
        yield
        times.append(_seconds(work, device))
    return min(times)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """What it took; of the only thread of many workers that share cores, without its waits.

    Where a dozen of them start at once, nobody has a core to itself for as long as a batch takes.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _rate(amount: float, seconds: float) -> int:
    return max(1, int(amount / max(seconds, 1e-9)))
