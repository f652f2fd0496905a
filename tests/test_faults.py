"""A disk that is full where a picture belongs: a sentence, and no half picture."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.picture import write_pictures
from live import ROOT

PAGE = 4096


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free byte; for who may mount one."""
    place = tmp_path / "full"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={PAGE}", "baguette_test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here ({error})")
    try:
        (place / "filler").write_bytes(bytes(PAGE))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_the_command_says_that_the_disk_is_full(full_disk: Path, three: Path) -> None:
    where = full_disk / "drawn.png"
    given = ["--model", str(three), "--output", str(where), "--num_steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "baguette", "generate", "any words at all", *given],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.endswith("; make room or give another place\n")
    assert [path.name for path in full_disk.iterdir()] == ["filler"]


def test_the_launcher_writes_a_whole_picture_or_none(full_disk: Path) -> None:
    result = {"images": [{"png": "iVBORw0KGgo="}]}
    with pytest.raises(OSError, match="No space left on device"):
        write_pictures(result, full_disk / "drawn.png")
    assert [path.name for path in full_disk.iterdir()] == ["filler"]
