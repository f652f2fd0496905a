"""What this machine is: CPU, memory, GPUs, and what torch was built for.

Called by the worker's entry points before torch is imported, and by `python -m baguette check`.
Never raises for what is absent: no driver, no library or no GPU is an answer with its reason.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

# What a process of experts may keep of the prompts it was asked for; at published size a prompt
# takes 20 MiB an expert in fp32, half of it in bf16.
CONTEXTS_MIB = 256

_MIB = 1 << 20
_CPUINFO = Path("/proc/cpuinfo")
MAX_TEXT = 120
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Readings:
    """What a GPU's sensors say now; None for what they do not say."""

    utilisation: float | None = None  # 0..1, of about the last second
    temperature_c: int | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU as its driver tells of it; memory 0 where the driver does not say."""

    name: str
    vram_mib: int
    vram_free_mib: int
    uuid: str = ""
    readings: Readings = Readings()


@dataclass(frozen=True)
class Gpus:
    """The GPUs that may be used, the one to use first; the driver, and why there are none."""

    found: tuple[Gpu, ...]
    driver: str | None
    reason: str


@dataclass(frozen=True)
class TorchBuild:
    """Which torch is installed and for which CUDA; None for what is not."""

    version: str | None
    cuda: str | None


@dataclass(frozen=True)
class Machine:
    """The hardware; memory in MiB, free as of now."""

    cpu: str
    cores: int
    logical_cores: int
    ram_mib: int
    ram_free_mib: int
    gpus: Gpus


def machine() -> Machine:
    """Look at this machine."""
    memory = psutil.virtual_memory()
    logical = psutil.cpu_count(logical=True) or 1
    return Machine(
        cpu=_cpu_name(),
        cores=psutil.cpu_count(logical=False) or logical,
        logical_cores=logical,
        ram_mib=memory.total // _MIB,
        ram_free_mib=memory.available // _MIB,
        gpus=gpus(),
    )


def _cpu_name() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    name = named[1] if named else platform.processor() or platform.machine() or "unknown"
    return " ".join(name.split())[:MAX_TEXT]


def bf16_instructions() -> str:
    """What this CPU multiplies bf16 with, as Linux spells it; empty where it has nothing for it."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return bf16_among(text)


def bf16_among(cpuinfo: str) -> str:
    """The best of them among the flags of the first CPU."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    has = set(flags[1].split()) if flags else set()
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in has), "")


def gpus() -> Gpus:
    """The NVIDIA GPUs, through the driver's own library."""
    try:
        import pynvml
    except ImportError as error:
        return Gpus((), None, f"the pynvml module cannot be imported ({error})")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus((), None, f"no NVIDIA driver answers ({error})")
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        every = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = usable(every, os.environ.get(VISIBLE))
        hidden = f"{VISIBLE} hides every GPU" if every else "the NVIDIA driver sees no GPU"
        return Gpus(found, driver, "" if found else hidden)
    except pynvml.NVMLError as error:
        return Gpus((), None, f"the NVIDIA driver cannot be asked ({error})")
    finally:
        pynvml.nvmlShutdown()


def usable(every: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order; without it all, the largest first.

    As CUDA reads it: numbers in the order of the bus or the beginning of a UUID, up to the first
    entry that means nothing.
    """
    if visible is None:
        return tuple(sorted(every, key=lambda gpu: -gpu.vram_mib))
    named: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdecimal() and int(entry) < len(every):
            named.append(every[int(entry)])
            continue
        alike = [gpu for gpu in every if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
        if len(alike) != 1:
            break
        named += alike
    return tuple(named)


def use(gpus: Gpus) -> None:
    """Let CUDA see the first one only; before torch is imported, which counts in another order."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if gpus.found and gpus.found[0].uuid:
        os.environ[VISIBLE] = gpus.found[0].uuid


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name, uuid = (
        _text(ask(handle)) for ask in (pynvml.nvmlDeviceGetName, pynvml.nvmlDeviceGetUUID)
    )
    now = readings(pynvml, handle)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:  # memory shared with the CPU has no figure of its own
        return Gpu(name, 0, 0, uuid, now)
    return Gpu(name, memory.total // _MIB, memory.free // _MIB, uuid, now)


def readings(pynvml: Any, handle: Any) -> Readings:
    """Ask each sensor by itself: a card of another kind lacks one or the other."""

    def said(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except pynvml.NVMLError:
            return None

    rates = said(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    celsius = said(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    milliwatts = said(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    return Readings(
        None if rates is None else rates.gpu / 100,
        celsius,
        None if milliwatts is None else milliwatts / 1000,
    )


def _text(value: str | bytes) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text[:MAX_TEXT]


def torch_build() -> TorchBuild:
    """The installed torch, read from its version file: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return TorchBuild(None, None)
    try:
        text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text("utf-8")
    except OSError:
        return TorchBuild(None, None)
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda\b[^=\n]*= '([^']+)'", text, re.MULTILINE)
    return TorchBuild(version[1] if version else None, cuda[1] if cuda else None)


def device(seen: Machine, build: TorchBuild) -> str:
    """Where experts will compute: what device.compute_device will say, told without torch."""
    return "cuda" if build.cuda and seen.gpus.found else "cpu"


def device_now(seen: Machine, on: str) -> dict[str, Any]:
    """What experts compute on, and how it is: of a CPU only whose memory is used is known."""
    gpu = seen.gpus.found[0] if on == "cuda" and seen.gpus.found else None
    if gpu and gpu.vram_mib:
        memory_mib, free_mib = gpu.vram_mib, gpu.vram_free_mib
    else:
        memory_mib, free_mib = seen.ram_mib, seen.ram_free_mib
    return {
        "name": gpu.name if gpu else seen.cpu,
        "memory_mib": memory_mib,
        "used_mib": max(0, memory_mib - free_mib),
        **asdict(gpu.readings if gpu else Readings()),
    }


def component_memory_mib(seen: Machine, on: str) -> int:
    """Free memory of the kind components lie in, the GPU's or the machine's, less the contexts'."""
    gpu = seen.gpus.found[0] if on == "cuda" and seen.gpus.found else None
    free_mib = gpu.vram_free_mib if gpu and gpu.vram_mib else seen.ram_free_mib
    return max(0, free_mib - CONTEXTS_MIB)
