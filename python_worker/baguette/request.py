"""A checked generation request. Called by the pipeline and the command lines.

The Erlang door checks the same bounds for a cluster (baguette_engine_request.erl).
"""

from __future__ import annotations

from dataclasses import dataclass

from baguette.errors import BadInput

MAX_PROMPT = 2000
MAX_IMAGES = 64
MAX_STEPS = 250
MAX_GUIDANCE = 30.0
MAX_SEED = 2**62
MAX_CACHE = 10.0


@dataclass(frozen=True)
class GenerationRequest:
    """What to draw. `top_k` None asks every expert with the router's own weights ("full").

    `deterministic` computes canonical calls only, one image and one expert at a time, as a cluster
    does: its bytes do not depend on company. Without it images share batches, which is faster.
    `cache` is the threshold below which velocities are used again (`baguette.reuse`); 0 is off.
    """

    prompt: str
    n: int
    steps: int
    guidance_scale: float
    top_k: int | None
    seed: int
    negative_prompt: str = ""
    deterministic: bool = True
    cache: float = 0.0

    def check(self, num_experts: int) -> None:
        """Raise BadInput naming the field, what it got and what is allowed."""
        if not self.prompt.strip():
            raise BadInput("prompt is empty; say what to draw")
        for name, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt)):
            if len(text) > MAX_PROMPT:
                raise BadInput(
                    f"{name} has {len(text)} characters but at most {MAX_PROMPT} are taken"
                )
        _within("n", self.n, 1, MAX_IMAGES)
        _within("steps", self.steps, 1, MAX_STEPS)
        _within("guidance_scale", self.guidance_scale, 1.0, MAX_GUIDANCE)
        _within("seed", self.seed, 0, MAX_SEED)
        _within("cache", self.cache, 0.0, MAX_CACHE)
        if self.cache > 0 and self.deterministic:
            raise BadInput("cache and deterministic exclude each other: give one of them")
        if self.top_k is not None:
            _within("top_k", self.top_k, 1, num_experts)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"{name} got {value} but expected {low}..{high}")
