"""What the entry points share: this process's figures, and what stays in it."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import time
from pathlib import Path

import psutil

STARTED = time.monotonic()
_MIB = 1 << 20
_SELF = Path("/proc/self")

_peak_before = [0]


def process_figures() -> dict[str, int | str]:
    """Memory now and at most (MiB), uptime (s) and pid of this process, for `stats`.

    device is where experts compute, "cpu" until torch is there to say. vram_mib counts the
    device's context where the driver tells it; 0 without a GPU.
    """
    vram, vram_peak = _vram_mib()
    return {
        "device": _device(),
        "rss_mib": psutil.Process().memory_info().rss // _MIB,
        "rss_peak_mib": max(_peak_mib(), _peak_before[0]),
        "vram_mib": vram,
        "vram_peak_mib": vram_peak,
        "uptime_s": int(time.monotonic() - STARTED),
        "os_pid": os.getpid(),
    }


def stays() -> None:
    """All there is by now stays until the process ends: the collector need not look at it again.

    Torch's modules are most of what it would look at, between the layers of somebody's picture.
    """
    gc.collect()
    gc.freeze()


def keep_peak() -> None:
    """Before a measurement whose memory is not the work's: the peak so far is remembered."""
    _peak_before[0] = max(_peak_mib(), _peak_before[0])


def forget_peak() -> None:
    """After it: the kernel counts its peak from now on; where it cannot, the peak stays high."""
    with contextlib.suppress(OSError):
        (_SELF / "clear_refs").write_text("5")


def _peak_mib() -> int:
    try:
        status = (_SELF / "status").read_text(encoding="ascii", errors="replace")
        match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    except OSError:
        match = None
    return int(match[1]) // 1024 if match else psutil.Process().memory_info().rss // _MIB


def _device() -> str:
    if "torch" not in sys.modules:
        return "cpu"
    from baguette.device import compute_device

    return compute_device().type


def _vram_mib() -> tuple[int, int]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0, 0
    reserved = torch.cuda.memory_reserved()
    whole = max(_vram_of_driver(), reserved)
    return whole // _MIB, (whole - reserved + torch.cuda.max_memory_reserved()) // _MIB


def _vram_of_driver() -> int:
    """Bytes this process has on its GPU as the driver counts them; 0 where it does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        ours = [
            process.usedGpuMemory or 0
            for handle in handles
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            if process.pid == os.getpid()
        ]
        return sum(ours)
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()


def micros_since(start: float) -> int:
    """Whole microseconds since `start`, a time.perf_counter() reading."""
    return int((time.perf_counter() - start) * 1e6)
