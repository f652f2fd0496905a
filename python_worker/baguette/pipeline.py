"""The way of a request in one process: encode, route, ask, advance, decode.

This is the reference for everything else: asked for a deterministic picture, and computing in fp32,
it gives the latents and pixels of a cluster to the byte (docs/internals/numerics.md). Called by
`python -m baguette`, the benches and the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baguette import canonical, together
from baguette.device import numbers, pin_threads, use_device
from baguette.ensemble import Ensemble
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.requester import Requester
from baguette.generation import Generation, Progress
from baguette.replay import recorded
from baguette.request import GenerationRequest
from baguette.runtime import Runtime


class Pipeline:
    """All components of one model directory in this process, computing as `runtime` says.

    `notes` are sentences about that for whoever started it.
    """

    def __init__(self, model_dir: Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        self.config = ModelConfig.read(model_dir)
        self.runtime.check(self.config.num_experts)
        pin_threads(self.runtime.threads)
        self.numbers = numbers(self.runtime)
        use_device(self.numbers.device)
        self.ensemble = Ensemble(model_dir, self.config, self.runtime, self.numbers)
        self.requester = Requester(model_dir, self.numbers)
        self.notes = [*self.numbers.notes, *self.ensemble.notes]

    def request(self, prompt: str, **options: Any) -> GenerationRequest:
        """A request with this model's defaults for whatever is not named; top_k None is full."""
        return self.config.request(prompt, **options)

    def __call__(
        self,
        request: GenerationRequest,
        progress: Progress | None = None,
        replay: Any = None,
    ) -> Generation:
        """Draw. `replay` is a result's `routing`: its experts and weights, the router not asked."""
        request.check(self.config.num_experts)
        imposed = None if replay is None else recorded(replay, request, self.config.num_experts)
        done = Generation(request, warnings=self.requester.warnings(request.prompt))
        with done.timed("total"):
            way = canonical if request.deterministic else together
            way.draw(self.requester, self.ensemble, done, progress, imposed)
        return done
