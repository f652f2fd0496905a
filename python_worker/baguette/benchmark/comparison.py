"""The plain loop against the pipeline, and what each optimisation gives, all in one process.

One of the benchmark's jobs (`child`). Everybody draws the same request with the thread count that
was measured to be best for them, in turn, round after round, so that what else the machine does
meets all alike. What dies with it: every copy of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import baguette
from baguette.benchmark import settings
from baguette.benchmark.child import peak_resident, synchronise
from baguette.benchmark.plain import LADDER, PLAIN, Plain
from baguette.benchmark.settings import BASE, OURS
from baguette.device import named, pin_threads
from baguette.pipeline import Pipeline
from baguette.replay import Routing
from baguette.request import GenerationRequest

_TRIES = 3
_FEW_STEPS = 8

Draw = Callable[[GenerationRequest, Routing | None], object]


@dataclass(frozen=True)
class Contestant:
    """Who draws, in which dtype, with how many threads."""

    name: str
    dtype: str
    threads: int
    draw: Draw


class Comparison:
    """Who there is follows from the device: a GPU computes in bf16 only, a CPU in fp32 too."""

    def __init__(
        self, model: str, device: str, cores: int, batch: int, steps: int, routing: str, full: bool
    ) -> None:
        self._device = named(device)
        pin_threads(cores)
        dtypes = ("fp32", "bf16") if self._device.type == "cpu" else ("bf16",)
        dtypes = dtypes if full else dtypes[:1]
        self._counts = thread_counts(cores) if self._device.type == "cpu" else [cores]
        pipelines = {
            precision: baguette.load(model, precision=precision, device=device, threads=cores)
            for precision in dtypes
        }
        plains = {
            precision: Plain(
                Path(model), self._device,
                torch.float32 if precision == "fp32" else torch.bfloat16,
            )
            for precision in dtypes
        }  # fmt: skip
        config = next(iter(pipelines.values())).config
        self._request = config.request(
            config.example_prompt, n=batch, steps=steps, deterministic=False
        )
        self._imposed = settings.routing(
            routing, batch, steps, config.defaults.top_k, config.num_experts
        )
        self._contestants = list(self._enter(plains, pipelines, full))
        self.about = {
            "contestants": [
                {"name": one.name, "dtype": one.dtype, "threads": one.threads}
                for one in self._contestants
            ]
        }

    def run(self) -> dict[str, float]:
        """One round: seconds of every contestant, by its place."""
        return {
            str(place): self._seconds(one.draw, one.threads, self._request.steps)
            for place, one in enumerate(self._contestants)
        }

    def end(self) -> dict[str, int]:
        return {"resident": peak_resident()}

    def _enter(
        self, plains: dict[str, Plain], pipelines: dict[str, Pipeline], full: bool
    ) -> Iterator[Contestant]:
        bases = [
            Contestant(BASE, dtype, self._best(_plainly(plain, PLAIN)), _plainly(plain, PLAIN))
            for dtype, plain in plains.items()
        ]
        yield from bases
        if full:
            yield from self._ladder(plains, bases[0])
        for precision, pipeline in pipelines.items():
            # Its lanes are as many as it was loaded with: nothing to look for.
            yield Contestant(OURS, precision, self._counts[-1], _ours(pipeline))

    def _ladder(self, plains: dict[str, Plain], base: Contestant) -> Iterator[Contestant]:
        """Each rung with the plain loop's threads; then the last with its own, and in bf16."""
        for name, way in LADDER[1:]:
            yield replace(base, name=name, draw=_plainly(plains[base.dtype], way))
        last = LADDER[-1][1]
        for dtype, plain in plains.items():
            draw = _plainly(plain, last)
            best = self._best(draw)
            if dtype != base.dtype:
                yield Contestant(f"+ computed in {dtype}", dtype, best, draw)
            elif best != base.threads:
                yield Contestant(f"+ {best} threads, not {base.threads}", dtype, best, draw)

    def _best(self, draw: Draw) -> int:
        """The thread count with which a few steps of the request take least.

        By the least of some tries: whatever else the machine does only ever adds.
        """
        if len(self._counts) == 1:
            return self._counts[0]
        steps = min(_FEW_STEPS, self._request.steps)
        times: dict[int, list[float]] = {count: [] for count in self._counts}
        for _ in range(_TRIES):
            for count in self._counts:
                times[count].append(self._seconds(draw, count, steps))
        return min(self._counts, key=lambda count: min(times[count]))

    def _seconds(self, draw: Draw, threads: int, steps: int) -> float:
        torch.set_num_threads(threads)
        self._draw(draw, 1)  # threads of the contestant before may still spin
        synchronise(self._device)
        start = time.perf_counter()
        self._draw(draw, steps)
        synchronise(self._device)
        return time.perf_counter() - start

    def _draw(self, draw: Draw, steps: int) -> None:
        imposed = None if self._imposed is None else [image[:steps] for image in self._imposed]
        draw(replace(self._request, steps=steps), imposed)


def _plainly(plain: Plain, way: Any) -> Draw:
    return lambda request, imposed: plain.draw(request, way, imposed)


def _ours(pipeline: Pipeline) -> Draw:
    return lambda request, imposed: pipeline(request, replay=imposed)


def thread_counts(cores: int) -> Sequence[int]:
    """1, 2, 4, ... and all: what "its best thread count" is looked for among."""
    counts = [1 << i for i in range(cores.bit_length()) if 1 << i < cores]
    return [*counts, cores]
