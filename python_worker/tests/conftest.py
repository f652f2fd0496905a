"""A tiny untrained model, written once per run; every test that needs a whole model shares it."""

from __future__ import annotations

from pathlib import Path

import pytest

from baguette.families.paris.tiny import build


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three experts on (3, 6, 6) latents: neither eight nor 4x32x32."""
    return build(tmp_path_factory.mktemp("models") / "tiny")
