"""A Runtime in torch's terms: device, dtypes, threads. Called by every process that computes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from baguette.errors import BadInput
from baguette.runtime import Runtime

# bf16 is taken on a CPU where it is so much faster: what is near one would turn with the weather.
CLEARLY_FASTER = 1.5
_TRIES = 5


@dataclass(frozen=True)
class Numbers:
    """How the networks' numbers are kept and computed, and where.

    `compute` is what everything computes in; `store` is how the experts' 2-D weights are kept:
    a float dtype, or int8 with a scale per output channel. `notes` say what a user would ask.
    """

    device: torch.device
    compute: torch.dtype
    store: torch.dtype
    notes: tuple[str, ...] = ()


def compute_device() -> torch.device:
    """Where experts compute: the first GPU if torch can use one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pin_threads(threads: int) -> None:
    """Compute with exactly `threads` threads: bytes are promised for one thread count only."""
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def numbers(runtime: Runtime, width: int, tokens: int) -> Numbers:
    """What a runtime means on this machine for a network of this hidden size and token count.

    fp32 computes in fp32. bf16 and int8 say how weights are kept: a GPU computes in bf16, a CPU in
    fp32 unless bf16 was just measured to be clearly faster at these sizes.
    """
    device = named(runtime.device)
    if runtime.precision == "fp32":
        return Numbers(device, torch.float32, torch.float32)
    store = torch.int8 if runtime.precision == "int8" else torch.bfloat16
    if device.type != "cpu":
        return Numbers(device, torch.bfloat16, store)
    gain = bf16_gain(width, tokens)
    fast = gain >= CLEARLY_FASTER
    compute = torch.bfloat16 if fast else torch.float32
    note = (
        f"{runtime.precision} is how weights are kept; this CPU computes in "
        f"{'bf16' if fast else 'fp32'} (bf16 was measured {gain:.1f} times as fast)"
    )
    return Numbers(device, compute, store, (note,))


def reference() -> Numbers:
    """How a cluster's workers compute: in fp32, on a GPU where there is one."""
    return numbers(Runtime(), 0, 0)


def named(device: str) -> torch.device:
    """The device a person named; BadInput when this machine or this torch has it not."""
    if device == "auto":
        return compute_device()
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = f"torch {torch.__version__}"
        why = "was built for the CPU" if torch.version.cuda is None else "finds no usable GPU"
        raise BadInput(f"device got {device!r} but {build} {why}: name cpu, or leave it out")
    wanted = torch.device(device)
    if (wanted.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device got {device!r} but this machine has {torch.cuda.device_count()} GPUs"
        )
    return wanted


def bf16_gain(width: int, tokens: int) -> float:
    """How many times as fast a bf16 linear of an MLP is as an fp32 one, with these threads."""
    x, w = torch.rand(tokens, width), torch.rand(4 * width, width)
    return _least_s(x, w) / max(_least_s(x.bfloat16(), w.bfloat16()), 1e-9)


@torch.inference_mode()
def _least_s(x: Tensor, w: Tensor) -> float:
    F.linear(x, w)  # the first call of a shape pays for its kernel
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        F.linear(x, w)
        times.append(time.perf_counter() - start)
    return min(times)
