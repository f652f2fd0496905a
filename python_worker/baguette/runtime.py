"""How a process is to compute: which device, how weights are kept, how many threads.

Made by the command lines and the worker, read by the loaders. Imports no torch, so that wrong
options are refused before anything heavy is imported; `baguette.device` turns it into torch's
terms. What dies with it: nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass

from baguette.errors import BadInput

PRECISIONS = ("bf16", "int8", "fp32")
MAX_THREADS = 256
COMPILERS = ("g++", "clang++", "c++")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class Runtime:
    """How to compute. The defaults are those of the reference: what a cluster's bytes are held to.

    `precision` is how the experts' weights are kept in memory; what they compute in follows from it
    and the device (`device.numbers`). `device` is auto, cpu, cuda or cuda:N. `offload` is how
    many experts stay in CPU memory while others are on the GPU. `compile` uses torch.compile for
    calls that need not be canonical.
    """

    precision: str = "fp32"
    device: str = "auto"
    threads: int = 1
    offload: int = 0
    compile: bool = False

    def check(self, num_experts: int) -> None:
        """Raise BadInput naming the field, what it got and what is allowed."""
        if self.precision not in PRECISIONS:
            raise BadInput(
                f"precision got {self.precision!r} but expected {', '.join(PRECISIONS[:-1])} or "
                f"{PRECISIONS[-1]}"
            )
        if not _DEVICE.fullmatch(self.device):
            raise BadInput(f"device got {self.device!r} but expected auto, cpu, cuda or cuda:N")
        if not 1 <= self.threads <= MAX_THREADS:
            raise BadInput(f"threads got {self.threads} but expected 1..{MAX_THREADS}")
        if not 0 <= self.offload < num_experts:
            raise BadInput(f"offload got {self.offload} but expected 0..{num_experts - 1}")
        if self.compile and not _compilers():
            raise BadInput("compile needs a C++ compiler: install g++, or leave it out")


def _compilers() -> list[str]:
    named = os.environ.get("CXX")
    return [name for name in ([named] if named else COMPILERS) if shutil.which(name)]


def cores() -> int:
    """How many threads can compute at once in this process: what is fastest without company."""
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


def wait_quietly() -> None:
    """Let this process' and its children's compute threads sleep while they wait for each other.

    Read once, when torch is loaded, so call it before. A thread that spins takes the core of whom
    it waits for as soon as anything else runs here: 17 times slower was seen on two busy cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
