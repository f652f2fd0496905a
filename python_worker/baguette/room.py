"""Whether a model fits: what it needs where, what is free there, and what would fit instead.

Called by the single-process pipeline before a tensor is read, since running out of memory
afterwards may take the whole machine with it; and by the command line where it ran out all the
same. Bytes throughout; sentences in GB (10^9), as people buy memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from baguette.device import Numbers
from baguette.errors import OutOfMemory
from baguette.runtime import Runtime

_GB = 1e9


class DoesNotFit(OutOfMemory):
    """Refused before anything was read; the sentence says what would fit."""


@dataclass(frozen=True)
class Need:
    """What a runtime needs on the device, and beside it in CPU memory when that is elsewhere."""

    device: int
    host: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of one expert by precision, of all else that computes, and of one call's work."""

    expert: Callable[[str], int]
    rest: int
    work: int


def need(sizes: Sizes, num_experts: int, runtime: Runtime, on_gpu: bool) -> Need:
    """Experts on the device are those not offloaded; all of them wait in CPU memory otherwise."""
    away = runtime.offload if on_gpu else 0
    one = sizes.expert(runtime.precision)
    here = (num_experts - away) * one + sizes.rest + sizes.work
    return Need(here, num_experts * one if away else 0)


def free(device: torch.device) -> Need:
    """What is free now, as a Need that would just fit."""
    host = psutil.virtual_memory().available
    if device.type == "cpu":
        return Need(host, host)
    return Need(torch.cuda.mem_get_info(device)[0], host)


def total(device: torch.device) -> Need:
    """What there would be with nothing else running."""
    host = psutil.virtual_memory().total
    if device.type == "cpu":
        return Need(host, host)
    return Need(torch.cuda.mem_get_info(device)[1], host)


def check(sizes: Sizes, num_experts: int, runtime: Runtime, numbers: Numbers) -> None:
    """DoesNotFit naming what is needed, what is free, and the first setting that would fit."""
    refuse(sizes, num_experts, runtime, numbers.device, free(numbers.device))


def refuse(
    sizes: Sizes, num_experts: int, runtime: Runtime, device: torch.device, there: Need
) -> None:
    """The same with what is free given."""
    on_gpu = device.type != "cpu"
    wanted = need(sizes, num_experts, runtime, on_gpu)
    if _fits(wanted, there):
        return
    where = f"on {device}" if on_gpu else "of memory"
    short = wanted.device > there.device
    needed, have = (wanted.device, there.device) if short else (wanted.host, there.host)
    place = where if short else "of CPU memory for the offloaded experts"
    sentence = f"{_name(runtime)} needs about {_gb(needed)} {place}, where {_gb(have)} are free"
    less = _smaller(sizes, num_experts, runtime, on_gpu, there)
    raise DoesNotFit(f"{sentence}; {less or 'no other setting fits either: close other programs'}")


def advice(
    sizes: Sizes, num_experts: int, runtime: Runtime, images: int, on_gpu: bool, there: Need
) -> str:
    """What to say when memory ran out in the middle of the work of so many images."""
    less = _smaller(sizes, num_experts, runtime, on_gpu, there)
    fewer = "ask for fewer images with --num_samples, or " if images > 1 else ""
    return f"memory ran out; {less or f'{fewer}close other programs'}"


def _smaller(
    sizes: Sizes, num_experts: int, runtime: Runtime, on_gpu: bool, there: Need
) -> str | None:
    """The first setting that needs less and fits: the same numbers before coarser ones."""
    now = need(sizes, num_experts, runtime, on_gpu)
    for other in _others(runtime, num_experts, on_gpu):
        then = need(sizes, num_experts, other, on_gpu)
        if _fits(then, there) and (then.device < now.device or then.host < now.host):
            return f"{_flags(other, runtime)} needs about {_gb(then.device)}"
    return None


def _others(runtime: Runtime, num_experts: int, on_gpu: bool) -> list[Runtime]:
    """What to try instead: the same numbers with more offloading, then smaller ones."""
    order = ("fp32", "bf16", "int8")
    smaller = order[order.index(runtime.precision) :]
    offloads = range(runtime.offload, num_experts) if on_gpu else (0,)
    return [
        replace(runtime, precision=precision, offload=offload)
        for precision in smaller
        for offload in offloads
    ]


def _fits(wanted: Need, there: Need) -> bool:
    return wanted.device <= there.device and wanted.host <= there.host


def _name(runtime: Runtime) -> str:
    away = f" with {runtime.offload} experts offloaded" if runtime.offload else ""
    return f"{runtime.precision}{away}"


def _flags(other: Runtime, asked: Runtime) -> str:
    flags = []
    if other.precision != asked.precision:
        flags.append(f"--precision {other.precision}")
    if other.offload != asked.offload:
        flags.append(f"--offload {other.offload}")
    return " ".join(flags)


def _gb(count: int) -> str:
    return f"{count / _GB:.0f} GB" if count >= 10 * _GB else f"{max(count / _GB, 0.1):.1f} GB"
