"""`python -m baguette check [DIR]`: can this machine compute with that model directory?

Called by people and by `make doctor`. One line a check: ok, warn or bad, and what to do; exit
status 1 when something is bad. Reads and hashes, changes nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baguette.commands.model_dir import default_model
from baguette.errors import WeightsError
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.files import PARTS, expert_file, part_folder, router_file
from baguette.files import standing
from baguette.machine import Gpus, TorchBuild, gpus, torch_build
from baguette.manifest import NAME, Manifest, listed

OK, WARN, BAD = "ok", "warn", "bad"
PYTHON = (3, 11)
LOW_DISK_MIB = 1024
NAMED = 12
REQUESTER_PARTS = ("router", *PARTS)
FETCH = "fetch the weights again (paris-mini: git checkout -- weights/paris-mini)"
EXAMPLES = """\
examples:
  python -m baguette check
  python -m baguette check weights/paris
  python -m baguette check weights/paris --json | jq '.checks[] | select(.state != "ok")'
"""


@dataclass(frozen=True)
class Check:
    """One answer: what was looked at, how it is, the facts, and what to do about them."""

    name: str
    state: str
    text: str
    todo: str = ""


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "check",
        help="check Python, torch, GPU and a model directory",
        description="Check that this machine can compute with a model directory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model_dir",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="model directory (default: generate's)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every check; 1 when one is bad."""
    model_dir = args.model_dir or default_model()
    checks = list(every_check(model_dir))
    if args.json:
        serves = not lacking(model_dir)
        listed = [asdict(check) for check in checks]
        print(json.dumps({"checks": listed, "serves": serves}, indent=1))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            todo = f" -> {check.todo}" if check.todo else ""
            print(f"{check.state:<4}  {check.name:<{width}}  {check.text}{todo}")
    return 1 if any(check.state == BAD for check in checks) else 0


def every_check(model_dir: Path) -> Iterator[Check]:
    """All of them, in the order of what depends on what."""
    yield python()
    build, seen = torch_build(), gpus()
    yield torch_installed(build)
    if build.version is not None:
        yield device(build, seen)
    yield gpu(build, seen)
    yield from model(model_dir)
    yield disk(model_dir)


def python() -> Check:
    """The interpreter's version."""
    text = f"Python {platform.python_version()}"
    if sys.version_info < PYTHON:
        return Check("python", BAD, text, f"install Python {PYTHON[0]}.{PYTHON[1]} or later")
    return Check("python", OK, text)


def torch_installed(build: TorchBuild) -> Check:
    """Which torch there is."""
    if build.version is None:
        return Check("torch", BAD, "torch is not installed", "run `make setup`")
    kind = f"for CUDA {build.cuda}" if build.cuda else "for the CPU"
    return Check("torch", OK, f"torch {build.version}, built {kind}")


def device(build: TorchBuild, seen: Gpus) -> Check:
    """What torch says it can compute on; imports it."""
    try:
        import torch

        from baguette.device import compute_device

        kind = compute_device().type
        name = f" ({torch.cuda.get_device_name()})" if kind == "cuda" else ""
    except (ImportError, OSError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0][:200]
        return Check("device", BAD, f"torch cannot be used: {why}", "run `make setup`")
    if kind == "cpu" and build.cuda and seen.found:
        text = f"torch {build.version} cannot use the GPU with driver {seen.driver}"
        return Check("device", WARN, text, f"install a driver for CUDA {build.cuda} or later")
    return Check("device", OK, f"experts compute on {kind}{name}")


def gpu(build: TorchBuild, seen: Gpus) -> Check:
    """The GPU as its driver tells of it, or why there is none."""
    if not seen.found:
        return Check("gpu", OK, f"none: {seen.reason}; the CPU is a full member")
    names = ", ".join(f"{one.name} ({one.vram_mib} MiB)" for one in seen.found)
    text = f"{names}, driver {seen.driver}"
    if build.cuda is None:
        todo = "install a torch built for CUDA into .venv to use it"
        return Check("gpu", WARN, f"{text}; this torch is built for the CPU", todo)
    return Check("gpu", OK, text)


def model(model_dir: Path) -> Iterator[Check]:
    """Layout, experts and hashes of a model directory."""
    try:
        config = ModelConfig.read(model_dir)
    except WeightsError as error:
        yield Check("model", BAD, str(error), "name another directory, or `make train-mini`")
        return
    parts = lacking(model_dir)
    if parts:
        text = f"{model_dir} lacks {', '.join(parts)}: it can hold experts, not serve requests"
        yield Check("model", WARN, text, "fetch these parts to serve requests from this node")
    else:
        yield Check("model", OK, f"{config.name} in {model_dir}")
    yield experts(model_dir, config)
    yield from hashes(model_dir)


def lacking(model_dir: Path) -> list[str]:
    """What a node needs to serve requests, and is not there."""
    return [part for part in REQUESTER_PARTS if not _there(model_dir, part)]


def _there(model_dir: Path, part: str) -> bool:
    if part == "router":
        return router_file(model_dir).is_file()
    try:
        return part_folder(model_dir, part).is_dir()
    except WeightsError:
        return False


def experts(model_dir: Path, config: ModelConfig) -> Check:
    """Which experts lie on this disk."""
    found = [n for n in range(config.num_experts) if expert_file(model_dir, n).is_file()]
    text = f"{len(found)} of {config.num_experts} experts on this disk"
    if not found:
        return Check("experts", BAD, text, "fetch at least one expert")
    if len(found) < config.num_experts:
        return Check("experts", OK, f"{text}: {', '.join(map(str, found))}")
    return Check("experts", OK, text)


def hashes(model_dir: Path) -> Iterator[Check]:
    """Every file against the manifest; one line for each that differs."""
    try:
        manifest = Manifest.read(model_dir)
    except WeightsError as error:
        yield Check("manifest", BAD, str(error), FETCH)
        return
    if manifest.lines is None:
        text = f"no {NAME}: what is damaged cannot be told"
        yield Check("manifest", WARN, text, "package the model again to write one")
        return
    there = listed(model_dir)
    faults = [fault for path in there for fault in manifest.faults((path,))]
    faults += manifest.lost(REQUESTER_PARTS)
    for fault in faults[:NAMED]:
        # The root config only holds defaults and settings: they may be changed by hand.
        state = WARN if fault.file == "config.json" else BAD
        yield Check("manifest", state, f"{fault.file}: {fault.why}", FETCH)
    if len(faults) > NAMED:
        yield Check("manifest", BAD, f"{len(faults) - NAMED} more files differ", FETCH)
    if not faults:
        yield Check("manifest", OK, f"{len(there)} files are what {NAME} says")


def disk(model_dir: Path) -> Check:
    """Room where the model lies, or would."""
    place = standing(model_dir)
    try:
        free_mib = shutil.disk_usage(place).free >> 20
    except OSError as error:
        return Check("disk", BAD, f"{place} cannot be asked ({error.strerror})", "mount it again")
    text = f"{free_mib} MiB free at {place}"
    if free_mib < LOW_DISK_MIB:
        return Check("disk", WARN, text, "make room before weights are fetched")
    return Check("disk", OK, text)
