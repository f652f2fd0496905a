"""What probes have measured, kept on disk under a key of hardware and versions.

Called by the expert worker's entry points. A file that is damaged, of another key or of another
format counts as not there: everything is measured again, and the log says why. Without a path it
remembers for the life of the process only. Imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from baguette.files import write_whole
from baguette.machine import Machine, TorchBuild

FORMAT = 2
MAX_BYTES = 1 << 20
MAX_COMPONENTS = 256
_MOST = 1 << 53
LOCK_SECONDS = 5.0

log = logging.getLogger(__name__)

Figures = dict[str, Any]


def key(seen: Machine, build: TorchBuild, device: str, threads: int) -> dict[str, Any]:
    """All that a measurement depends on, apart from the component."""
    gpu = seen.gpus.found[0] if seen.gpus.found else None
    return {
        "cpu": seen.cpu,
        "cores": seen.cores,
        "logical_cores": seen.logical_cores,
        "gpu": gpu.name if gpu else None,
        "driver": seen.gpus.driver,
        "device": device,
        "torch": build.version,
        "baguette": _version(),
        "threads": threads,
    }


def _version() -> str | None:
    try:
        return metadata.version("baguette")
    except metadata.PackageNotFoundError:  # run from its sources, without being installed
        return None


class Kept:
    """Measurements by name: of the machine, and of each kind of component."""

    def __init__(self, path: Path | None, key: dict[str, Any]) -> None:
        self._path = path
        self._key = key
        self._values: Figures = {"machine": {}, "components": {}}
        if path is not None:
            self._values = self._read(path, say=True) or self._values

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One of this machine's nodes at a time measures; what the others found is known inside.

        Eight that measure the same at once on two cores would find eight different speeds.
        """
        if self._path is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                name = self._path.with_name(f"{self._path.name}.lock")
                _lock(stack.enter_context(name.open("a", encoding="ascii")))
            except OSError as error:
                # Asks wait for whoever waits here: rather a figure that others disturbed.
                log.warning("probes are not taken in turn (%s)", error)
            self._merge(self._read(self._path, say=False))
            yield

    def machine(self) -> Figures:
        """What is known of the machine: name -> whole number."""
        return dict(self._values["machine"])

    def component(self, kind: str) -> Figures:
        """What is known of a kind: call_us, skipped, rows_equal, load_us_per_mib; quiet: how."""
        return dict(self._values["components"].get(kind, {}))

    def put_machine(self, **figures: int) -> None:
        """Remember these and write the file."""
        self._values["machine"].update(figures)
        self._write()

    def put_component(self, kind: str, **figures: Any) -> None:
        """Remember these of a kind of component and write the file."""
        components = self._values["components"]
        # Taken out and put in again: the oldest are the first to be forgotten.
        components[kind] = components.pop(kind, {}) | figures
        while len(components) > MAX_COMPONENTS:
            del components[next(iter(components))]
        self._write()

    def _read(self, path: Path, say: bool) -> Figures | None:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError("it is too large")
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["key"] != self._key:
                if say:
                    log.info("probe file %s is of other hardware or versions: measured again", path)
                return None
            return _checked(values)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = f"{type(error).__name__}: {str(error)[:200]}"
            if say:
                log.warning("probe file %s is damaged (%s): measured again", path, why)
            return None

    def _write(self) -> None:
        if self._path is None:
            return
        self._merge(self._read(self._path, say=False))
        content = {"format": FORMAT, "key": self._key, **self._values}
        try:
            write_whole({self._path: (json.dumps(content, indent=1) + "\n").encode()})
        except OSError as error:
            # Measured anew at the next start, which is all that is lost.
            log.warning("probe file %s cannot be written (%s)", self._path, error)

    def _merge(self, theirs: Figures | None) -> None:
        """Other nodes of this machine keep theirs in the same file."""
        if theirs is None:
            return
        self._values["machine"] = {**theirs["machine"], **self._values["machine"]}
        ours = self._values["components"]
        both = {kind: _joined(theirs["components"].get(kind, {}), ours[kind]) for kind in ours}
        both = {**theirs["components"], **both}
        self._values["components"] = dict(list(both.items())[-MAX_COMPONENTS:])


def _joined(theirs: Figures, ours: Figures) -> Figures:
    """Of two times for the same call the lesser: less was in its way."""
    both = {**theirs, **ours}
    calls = (theirs.get("call_us", {}), ours.get("call_us", {}))
    batches = sorted({batch for times in calls for batch in times}, key=int)
    if batches:
        both["call_us"] = {n: min(times[n] for times in calls if n in times) for n in batches}
    return both


def _lock(file: IO[str]) -> None:
    """At most LOCK_SECONDS of patience; TimeoutError is an OSError."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(f"{file.name} is held by another node") from None
            time.sleep(0.01)


def _checked(values: Figures) -> Figures:
    """Only whole positive numbers where numbers belong; ValueError otherwise."""
    machine = {str(name): _number(value) for name, value in values["machine"].items()}
    components = {str(k): _component(v) for k, v in values["components"].items()}
    if len(components) > MAX_COMPONENTS:
        raise ValueError("too many components")
    return {"machine": machine, "components": components}


def _component(figures: Any) -> Figures:
    call_us = {str(int(n)): _number(us) for n, us in figures.get("call_us", {}).items()}
    lists = {
        name: [_number(n) for n in figures[name]]
        for name in ("skipped", "rows_equal")
        if name in figures
    }
    numbers = {n: _number(figures[n]) for n in ("load_us_per_mib", "quiet") if n in figures}
    return {"call_us": call_us, **lists, **numbers}


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MOST:
        raise ValueError(f"{value!r} is not a measurement")
    return value
