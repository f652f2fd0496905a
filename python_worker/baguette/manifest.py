"""manifest.json: what every file of a model directory should be, and whether it still is.

Written when a model is packaged, read by the family's file list before a component is announced or
loaded: a file that differs from its line is refused by name, never loaded. A directory without a
manifest is taken as it lies. Imports no torch. What dies with it: nothing but remembered hashes.

    {"files": {"expert_0/config.json": {"sha256": "64 hex digits", "bytes": 350}, ...}}
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from baguette.errors import WeightsError
from baguette.files import write_whole

NAME = "manifest.json"
MAX_BYTES = 4 << 20
MAX_FILES = 4096
_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Fault:
    """One file that is not what its manifest says: its name below the directory, and why."""

    file: str
    why: str


@dataclass(frozen=True)
class Line:
    """What a file should be."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The lines of one directory; `lines` is None where there is no manifest."""

    model_dir: Path
    lines: Mapping[str, Line] | None

    @classmethod
    def read(cls, model_dir: Path) -> Manifest:
        """The manifest of `model_dir`; WeightsError when it is there and is not one."""
        path = model_dir / NAME
        try:
            if path.stat().st_size > MAX_BYTES:
                raise WeightsError(f"{path} is larger than {MAX_BYTES} bytes; is it a manifest?")
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(model_dir, None)
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path} cannot be read ({error}); fetch it again") from None
        return cls(model_dir, dict(_lines(path, values)))

    def faults(self, paths: tuple[Path, ...], folders: tuple[str, ...] = ()) -> list[Fault]:
        """What is wrong with these files; of `folders`, listed files that are not there too."""
        try:
            digests = file_digests(paths)[1]
        except OSError as error:
            name = self._name(Path(error.filename)) if error.filename else str(self.model_dir)
            why = "missing" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
            return [Fault(name, why)]
        if self.lines is None:
            return []
        found = [self._fault(path, digest) for path, digest in zip(paths, digests, strict=True)]
        return [fault for fault in found if fault is not None] + self.lost(folders)

    def size_faults(self) -> list[Fault]:
        """Listed files that are not there, or not as long; no byte of them is read."""
        found = []
        for name, line in (self.lines or {}).items():
            try:
                size = (self.model_dir / name).stat().st_size
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                found.append(Fault(name, "missing" if missing else f"{error.strerror}"))
                continue
            if size != line.size:
                found.append(Fault(name, f"{size} bytes instead of {line.size}"))
        return found

    def lost(self, folders: tuple[str, ...]) -> list[Fault]:
        """Listed files of folders that are there themselves, but without them."""
        return [
            Fault(name, "missing")
            for name in self.lines or ()
            if (folder := name.split("/", 1)[0]) in folders
            and (self.model_dir / folder).is_dir()
            and not (self.model_dir / name).is_file()
        ]

    def _fault(self, path: Path, digest: str) -> Fault | None:
        name = self._name(path)
        line = (self.lines or {}).get(name)
        if line is None:
            # An editor's or a system's own file: nothing here reads it.
            return None if path.name.startswith(".") else Fault(name, "not in the manifest")
        if line.sha256 == digest:
            return None
        size = path.stat().st_size
        more = "" if size == line.size else f": {size} bytes instead of {line.size}"
        return Fault(name, f"wrong hash{more}")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.model_dir).as_posix()


def _lines(path: Path, values: Any) -> Iterator[tuple[str, Line]]:
    files = values.get("files") if isinstance(values, dict) else None
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise WeightsError(f"{path} holds no list of files; fetch it again")
    for name, about in files.items():
        pure = PurePosixPath(name)
        sha256 = about.get("sha256") if isinstance(about, dict) else None
        size = about.get("bytes") if isinstance(about, dict) else None
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or not (isinstance(sha256, str) and _SHA256.fullmatch(sha256))
            or not (isinstance(size, int) and size >= 0)
        ):
            raise WeightsError(f"{path}: the line of {name[:100]!r} is malformed; fetch it again")
        yield name, Line(sha256, size)


def file_digests(paths: tuple[Path, ...]) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of all bytes in the order given, and of each file alone, as hex digits.

    A file is read again only when its time or size changed.
    """
    stats = [path.stat() for path in paths]
    return _digests(paths, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@functools.lru_cache(maxsize=256)
def _digests(
    paths: tuple[Path, ...], _stamps: tuple[tuple[int, int], ...]
) -> tuple[str, tuple[str, ...]]:
    whole = hashlib.sha256()
    each = []
    for index, path in enumerate(paths):
        # The first file is the start of the whole: large weights come first and are hashed once.
        own = whole if index == 0 else hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                whole.update(chunk)
                if own is not whole:
                    own.update(chunk)
        each.append(own.hexdigest())
    return whole.hexdigest(), tuple(each)


def listed(model_dir: Path) -> list[Path]:
    """The files a manifest speaks of: all but hidden ones, documents and the manifest itself."""
    return sorted(
        path
        for path in model_dir.rglob("*")
        if path.is_file()
        and path != model_dir / NAME
        and path.suffix != ".md"
        and not any(part.startswith(".") for part in path.relative_to(model_dir).parts)
    )


def write(model_dir: Path) -> Path:
    """Write the manifest of a directory as it lies now."""
    files = {
        path.relative_to(model_dir).as_posix(): {
            "sha256": file_digests((path,))[0],
            "bytes": path.stat().st_size,
        }
        for path in listed(model_dir)
    }
    target = model_dir / NAME
    write_whole({target: (json.dumps({"files": files}, indent=1) + "\n").encode()})
    target.chmod(0o644)
    return target
