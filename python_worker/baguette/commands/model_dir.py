"""Which model directory a command means when none is named. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from baguette.checkout import REPOSITORY
from baguette.errors import BadInput

PARIS, MINI = Path("weights/paris"), Path("weights/paris-mini")
KEPT_AS = {"bf16": Path("weights/bf16"), "int8": Path("weights/int8")}


def default_model(precision: str = "bf16") -> Path:
    """weights/paris, else what was made for this precision, else weights/paris-mini.

    Looked for in the repository this package lies in, then in the current directory. BadInput when
    there is none.
    """
    names = (PARIS, KEPT_AS.get(precision, KEPT_AS["bf16"]), MINI)
    for name in names:
        for place in (REPOSITORY, Path.cwd()):
            if (place / name).is_dir():
                return place / name
    raise BadInput(f"none of {', '.join(map(str, names))} is there: name a directory with --model")


def given_model(named: Path | None, precision: str = "bf16") -> Path:
    """The directory that was named, or the default; BadInput where that is no directory."""
    if named is None:
        return default_model(precision)
    if not named.is_dir():
        raise BadInput(f"--model got {str(named)!r} but there is no such directory")
    return named


def near(path: Path) -> str:
    """A path as a person says it: relative to the current directory where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
