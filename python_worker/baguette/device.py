"""A Runtime in torch's terms: device, dtypes, threads. Called by every process that computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baguette.errors import BadInput
from baguette.machine import bf16_instructions
from baguette.runtime import Runtime


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


def use_device(device: torch.device) -> None:
    """Make a GPU that was named by number the current one, whose streams and events are meant."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def numbers(runtime: Runtime) -> Numbers:
    """What a runtime means on this machine.

    fp32 computes in fp32. bf16 and int8 say how weights are kept: a GPU computes in bf16, a CPU in
    bf16 where it has instructions for it (several times as fast, docs/PERFORMANCE.md), else in
    fp32. Not timed anew in each process: a seed would then give other pixels on a busy day.
    """
    device = named(runtime.device)
    if runtime.precision == "fp32":
        return Numbers(device, torch.float32, torch.float32)
    store = torch.int8 if runtime.precision == "int8" else torch.bfloat16
    if device.type != "cpu":
        return Numbers(device, torch.bfloat16, store)
    has = bf16_instructions()
    note = f"{runtime.precision} is how weights are kept; this CPU computes in " + (
        f"bf16, for which it has {has}" if has else "fp32: it has no instructions for bf16"
    )
    return Numbers(device, torch.bfloat16 if has else torch.float32, store, (note,))


def reference() -> Numbers:
    """How a cluster's workers compute: in fp32, on a GPU where there is one."""
    return numbers(Runtime())


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
