"""A tiny untrained model, written once per run; every test that needs a whole model shares it."""

from __future__ import annotations

import os
from pathlib import Path

# NumPy's threads wait for each other by spinning: on cores shared with others that costs three
# times the work. The float64 networks use a thread a row instead. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from baguette.families.paris.tiny import build


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three experts on (3, 6, 6) latents: neither eight nor 4x32x32."""
    return build(tmp_path_factory.mktemp("models") / "tiny")
