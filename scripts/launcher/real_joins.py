"""`make join` as people run it, with Python and the model, timed part by part.

Two nodes on loopback addresses, each with a home and a run directory of its own: the first of a
cluster, then a second one, once with nothing known of this machine's speed and once with it kept.
Called by scripts/bench_cluster.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.options import ROOT
from launcher.processes import Refused

ADDRESSES = ("127.0.5.1", "127.0.5.2")
SECONDS = 600.0
NODE = ROOT / "scripts" / "node.py"


def real_joins(port: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the command to each part, and to READY, of three joins."""
    with tempfile.TemporaryDirectory(prefix="baguette-joins-") as where:
        homes = [Path(where) / "1", Path(where) / "2"]
        machines = [_environment(h, a, port) for h, a in zip(homes, ADDRESSES, strict=True)]
        (homes[1] / ".config").mkdir(parents=True)
        try:
            tell("the first node joins")
            first = _join(homes[0], ADDRESSES[0], machines[0], "")
            shutil.copytree(homes[0] / ".config" / "baguette", homes[1] / ".config" / "baguette")
            tell("the second joins, nothing known of its speed")
            second = _join(homes[1], ADDRESSES[1], machines[1], ADDRESSES[0])
            _run("leave", machines[1])
            tell("the second joins again")
            again = _join(homes[1], ADDRESSES[1], machines[1], ADDRESSES[0])
        finally:
            for machine in reversed(machines):
                _run("leave", machine)
    return {"first": first, "second": second, "second again": again}


def _environment(home: Path, address: str, port: int) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BAGUETTE", "XDG_"))}
    own = {"HOME": str(home), "BAGUETTE_RUN": str(home / "run"), "SECRET_FILE": ""}
    return {**clean, **own, "ADDRESS": address, "PORT": str(port)}


def _join(home: Path, address: str, machine: dict[str, str], peers: str) -> dict[str, float]:
    _run("join", {**machine, "PEERS": peers})
    record = home / "run" / f"member-{address}" / "join.json"
    parts: dict[str, float] = json.loads(record.read_text(encoding="ascii"))
    return parts


def _run(command: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(NODE), command],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(f"{command} failed: {done.stdout}{done.stderr}")
