"""A tiny untrained model, written once per run, and `generate` as a person calls it with it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The float64 networks compute a row a thread: threads of NumPy's own would only be in their way.
# Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from baguette.families.paris.tiny import build

# No property fails because the machine stood still for a moment.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Started in the background we ignore interrupts, and all that we start would; it must hear of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three experts on (3, 6, 6) latents: neither eight nor 4x32x32."""
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def damaged(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Copy the tiny model with one file changed, or with None taken away."""

    def copy(file: str, change: Callable[[bytes], bytes] | None) -> Path:
        other = tmp_path_factory.mktemp("damaged") / "model"
        shutil.copytree(tiny_dir, other)
        if change is None:
            (other / file).unlink()
        else:
            (other / file).write_bytes(change((other / file).read_bytes()))
        return other

    return copy


@pytest.fixture
def run(tiny_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run `generate` in this process: (status, standard output, standard error)."""
    from baguette.__main__ import main

    def command(*words: str) -> tuple[int, str, str]:
        out = str(tmp_path / "drawn.png")
        given = ["generate", "--model", str(tiny_dir), "--output", out, "--threads", "1", *words]
        try:
            status = main(given)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return status, *capfd.readouterr()

    return command
