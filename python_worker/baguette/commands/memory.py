"""What to say when memory ran out: which options would have fitted, by the weights' sizes.

Called by `commands.generate` after the fact. An estimate: weights are counted, what is computed
with them is a share on top.
"""

from __future__ import annotations

import math
from pathlib import Path

import psutil
import torch
from safetensors import safe_open

from baguette.families.paris.files import expert_file
from baguette.runtime import Runtime

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
ON_TOP = 1.3  # for activations, and for what the allocator keeps
GB = 10**9


def advice(model_dir: Path, num_experts: int, runtime: Runtime, images: int) -> str:
    """A sentence without its full stop, for the machine and the model at hand."""
    files = [expert_file(model_dir, number) for number in range(num_experts)]
    experts = [_numbers(file) for file in files if file.is_file()]
    others = set(model_dir.rglob("*.safetensors")) - set(files)
    rest = sum(_numbers(file) for file in others)
    gpu = runtime.device != "cpu" and torch.cuda.is_available()
    room = torch.cuda.mem_get_info()[1] if gpu else psutil.virtual_memory().total
    return what_fits(experts, rest, runtime, gpu=gpu, room=room, images=images)


def what_fits(
    experts: list[int], rest: int, runtime: Runtime, *, gpu: bool, room: int, images: int
) -> str:
    """The least change that fits into `room` bytes; `experts` and `rest` are counts of numbers.

    Offloading comes before int8, which changes the picture, and helps on a GPU only.
    """
    offloads = range(runtime.offload, len(experts)) if gpu else (runtime.offload,)
    for precision in dict.fromkeys((runtime.precision, "int8")):
        for offload in offloads:
            need = _need(experts, rest, precision, offload if gpu else 0)
            options = _options(runtime, precision, offload)
            if options and need <= room:
                return f"memory ran out; {options} needs about {max(need / GB, 0.1):.1f} GB"
    fewer = "ask for fewer images with --num_samples, or " if images > 1 else ""
    return f"memory ran out; {fewer}close other programs"


def _options(runtime: Runtime, precision: str, offload: int) -> str:
    """What differs from what was asked for, as it is typed."""
    changed = [f"--precision {precision}"] if precision != runtime.precision else []
    changed += [f"--offload {offload}"] if offload != runtime.offload else []
    return " ".join(changed)


def _need(experts: list[int], rest: int, precision: str, offload: int) -> float:
    """Bytes on the device: resident experts, the largest first, and all else, never as int8."""
    resident = sum(sorted(experts, reverse=True)[: len(experts) - offload])
    other = WEIGHT_BYTES["bf16" if precision == "int8" else precision]
    return ON_TOP * (resident * WEIGHT_BYTES[precision] + rest * other)


def _numbers(path: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    with safe_open(str(path), framework="pt") as file:
        names = list(file.keys())
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
