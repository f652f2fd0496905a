"""Baguette's Python half: the Paris models, the sampler and the single-process pipeline.

`load(model_dir, precision="bf16")` gives a `Pipeline`, its options being a `Runtime`'s; calling it
with a `GenerationRequest` draws. The names are imported on first use, so that an expert worker
never pays for transformers and diffusers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baguette.pipeline import Pipeline
    from baguette.request import GenerationRequest

__all__ = ["GenerationRequest", "Pipeline", "load"]


def load(model_dir: str | Path, **runtime: Any) -> Pipeline:
    """Load every component of a model directory into this process, to compute as `Runtime` says."""
    from baguette.pipeline import Pipeline
    from baguette.runtime import Runtime

    return Pipeline(Path(model_dir), Runtime(**runtime))


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from baguette.pipeline import Pipeline

        return Pipeline
    if name == "GenerationRequest":
        from baguette.request import GenerationRequest

        return GenerationRequest
    raise AttributeError(f"module 'baguette' has no attribute {name!r}")
