"""What makes `python quantize.py ...` at the repository's root the same as `python -m baguette`.

Called by the scripts at the root, with whatever interpreter was typed. Where that one has no torch,
the repository's own (`.venv`, made by `make setup`) takes over in the same process, so that signals
and the exit status are the command's own.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
OLDEST = (3, 11)
REFUSED = 2


def run(command: str, prepare: Callable[[], None] = lambda: None) -> NoReturn:
    """Run `command` of the package with this process' arguments; does not come back.

    `prepare` is called once the package can be imported.
    """
    if sys.version_info < OLDEST or importlib.util.find_spec("torch") is None:
        _take_over()
    # In place of the root, where a script's name could hide a module of the same name.
    sys.path[0] = str(ROOT / "python_worker")
    prepare()
    sys.argv[1:1] = [command]
    runpy.run_module("baguette", run_name="__main__", alter_sys=True)
    sys.exit(0)


def _take_over() -> NoReturn:
    python = VENV / "bin" / "python"
    ours = Path(sys.prefix).resolve() == VENV.resolve()
    if ours or not os.access(python, os.X_OK):
        sys.stderr.write(f"torch is not installed: run `make setup` in {ROOT} first\n")
        sys.exit(REFUSED)
    os.execv(python, [str(python), *sys.argv])
