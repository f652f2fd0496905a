"""A setting, or the comparison, in a process of its own: `python -m baguette.benchmark.child JOB`.

Its own process, so that peak memory is that of the setting and of nothing else. Started and asked
by `children`; a line "run" on standard input measures once, "end" asks for the peaks, end of file
ends it. A line of JSON answers each, on what was standard output; whatever a library prints goes to
standard error. What dies with it: the model it loaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

from baguette.errors import BaguetteError, port_class


class Work(Protocol):
    """What a job becomes: facts about it, one measurement, and what is known at the end."""

    about: dict[str, Any]

    def run(self) -> dict[str, float]:
        """Measure once: seconds by name."""

    def end(self) -> dict[str, int]:
        """Peak memory by name, in bytes."""


class Drawing:
    """A setting: the pipeline as its users have it, drawing one request again and again."""

    def __init__(
        self, model: str, runtime: dict[str, Any], batch: int, steps: int, routing: str
    ) -> None:
        import baguette.pipeline
        from baguette.benchmark import settings

        self._base = peak_resident()
        start = time.perf_counter()
        self._pipeline = baguette.load(model, **runtime)
        self._loaded_s = time.perf_counter() - start
        config = self._pipeline.config
        self._request = self._pipeline.request(
            config.example_prompt, n=batch, steps=steps, deterministic=False
        )
        self._imposed = settings.routing(
            routing, batch, steps, config.defaults.top_k, config.num_experts
        )
        self._draw(steps)  # the first meets every shape: kernels are chosen, graphs compiled
        numbers = self._pipeline.numbers
        self.about = {
            "notes": self._pipeline.notes,
            "load_s": self._loaded_s,
            "computes": str(numbers.compute).removeprefix("torch."),
        }

    def run(self) -> dict[str, float]:
        self._draw(1)  # threads and clocks that slept while others were measured
        return self._draw(self._request.steps)

    def end(self) -> dict[str, int]:
        import torch

        peaks = {"resident": peak_resident(), "before_loading": self._base}
        device = self._pipeline.numbers.device
        if device.type == "cuda":
            peaks["allocated"] = torch.cuda.max_memory_allocated(device)
            peaks["reserved"] = torch.cuda.max_memory_reserved(device)
        return peaks

    def _draw(self, steps: int) -> dict[str, float]:
        """Seconds by part of so many steps; every part ends with a copy to the CPU or a check."""
        from dataclasses import replace

        request = replace(self._request, steps=steps)
        imposed = None if self._imposed is None else [image[:steps] for image in self._imposed]
        asked = _Unheeded(self._pipeline, request) if imposed is not None else None
        synchronise(self._pipeline.numbers.device)
        start = time.perf_counter()
        done = self._pipeline(request, asked, replay=imposed)
        synchronise(self._pipeline.numbers.device)
        seconds = {**done.seconds, "total": time.perf_counter() - start}
        if asked is not None:
            seconds["route"] += asked.seconds
        return seconds


class _Unheeded:
    """Asks the router as usual where a routing is imposed, so that its cost is not left out."""

    def __init__(self, pipeline: Any, request: Any) -> None:
        import torch

        self.seconds = 0.0
        self._requester, self._top_k = pipeline.requester, request.top_k
        self._times = self._requester.times(request.steps)
        latents = [self._requester.start(request.seed + i) for i in range(request.n)]
        self._latents = torch.stack(latents).to(self._requester.device)

    def __call__(self, step: int, steps: int, experts: list[tuple[int, ...]]) -> None:
        start = time.perf_counter()
        self._requester.routing(self._latents, self._times[step], self._top_k)()
        self.seconds += time.perf_counter() - start


def synchronise(device: Any) -> None:
    """Wait until the device has done what it was given: clocks are read after that."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_resident() -> int:
    """Most bytes this process ever had in memory.

    Not getrusage's: that one begins with the size of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise BaguetteError("/proc/self/status has no VmHWM: peak memory needs Linux")


def comparison(**job: Any) -> Work:
    """The plain loop against the pipeline."""
    from baguette.benchmark.comparison import Comparison

    return Comparison(**job)


KINDS: dict[str, Callable[..., Work]] = {"setting": Drawing, "comparison": comparison}


def serve(work: Work, questions: TextIO, answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer until there is nothing more to read."""
    answer({"ready": work.about})
    for line in questions:
        word = line.strip()
        answer({"ran": work.run()} if word == "run" else {"ended": work.end()})


def main() -> int:
    """Load, answer; a failure is an answer too."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    job = json.loads(sys.argv[1])
    try:
        serve(KINDS[job.pop("kind")](**job), sys.stdin, answer)
    except (BaguetteError, OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, BaguetteError) and port_class(error) == BaguetteError.name:
            raise  # our own fault: its traceback is for whoever mends it
        answer({"failed": port_class(error), "sentence": " ".join(str(error).split())})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
