"""Baguette's Python half: the Paris models, the sampler and the single-process pipeline.

`load(model_dir)` gives a `Pipeline`; calling it with a `GenerationRequest` draws. The names are
imported on first use, so that an expert worker never pays for transformers and diffusers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baguette.pipeline import Pipeline
    from baguette.request import GenerationRequest

__all__ = ["GenerationRequest", "Pipeline", "load"]


def load(model_dir: str | Path, threads: int = 1) -> Pipeline:
    """Load every component of a model directory into this process."""
    from baguette.pipeline import Pipeline

    return Pipeline(Path(model_dir), threads)


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from baguette.pipeline import Pipeline

        return Pipeline
    if name == "GenerationRequest":
        from baguette.request import GenerationRequest

        return GenerationRequest
    raise AttributeError(f"module 'baguette' has no attribute {name!r}")
