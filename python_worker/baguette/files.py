"""Files that appear whole or not at all.

Called by the command lines, and by the launcher's scripts. A file is written beside its place and
moved there; whatever goes wrong, no half file is left and an old one stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from baguette.errors import BadInput, WeightsError


def check_writable(path: Path) -> None:
    """Raise OSError where `path` could not be written; make its directory, leave no file."""
    if path.is_dir():
        raise IsADirectoryError(0, "it is a directory", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as probe:
        probe.touch(exist_ok=False)


def check_option(option: str, path: Path) -> None:
    """The same for a file that was named on a command line: BadInput says with which option."""
    try:
        check_writable(path)
    except OSError as error:
        raise BadInput(f"{option} {str(path)!r} cannot be written: {error.strerror}") from None


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Write every file beside its place, then move each there."""
    with contextlib.ExitStack() as stack:
        moves = []
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            new = stack.enter_context(_beside(path))
            new.write_bytes(content)
            moves.append((new, path))
        for new, path in moves:
            os.replace(new, path)


def check_room(place: Path, needed: int) -> None:
    """Raise WeightsError where `needed` bytes do not fit below `place`."""
    there = standing(place)
    free = shutil.disk_usage(there).free
    if free < needed:
        raise WeightsError(
            f"{place} needs {needed >> 20} MiB but {free >> 20} MiB are free at {there}: make room "
            "or name another place"
        )


def standing(place: Path) -> Path:
    """`place` itself, or the nearest directory above it that exists."""
    return next(p for p in (place.resolve(), *place.resolve().parents) if p.exists())


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in the same directory that is gone afterwards, unless it was moved."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)
