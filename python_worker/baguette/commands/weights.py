"""`python -m baguette weights`: fetch the published Paris, check it, write its manifest.

Called by `baguette.__main__` and by `make weights`. Run again it goes on where it was stopped. The
token for a gated model comes from HF_TOKEN or `hf auth login`, never from the command line.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from baguette.commands.inspect import part_lines
from baguette.errors import BadInput, WeightsError

REPO = "bageldotcom/paris"
TARGET = Path("weights/paris")
INTERRUPTED = 130
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
EXAMPLES = """\
examples:
  python -m baguette weights
  python -m baguette weights --experts 0,3
  make weights EXPERTS=0,3 DIR=/data/paris
"""


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "weights",
        help="fetch the published Paris",
        description="Fetch the published Paris, check it and write its manifest.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--experts", help="only these, as 0,3 or 0-3 (default: all)")
    parser.add_argument("--repo", default=REPO, help=f"repository of the Hub (default {REPO})")
    parser.add_argument("--revision", help="branch, tag or commit (default: the newest)")
    parser.add_argument("--dir", type=Path, default=TARGET, help=f"where to (default {TARGET})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch, look at what came, tell; 1 where the network, the Hub or the disk refuses."""
    experts = None if args.experts is None else numbers(args.experts)
    if not _REPO.fullmatch(args.repo):
        raise BadInput(f"--repo got {args.repo[:80]!r} but expected OWNER/NAME")
    if args.dir.exists() and not args.dir.is_dir():
        raise BadInput(f"--dir {str(args.dir)!r} is not a directory")
    try:
        return _fetch(args, experts)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED


def _fetch(args: argparse.Namespace, experts: list[int] | None) -> int:
    from baguette.families.paris.fetching import fetch, quiet
    from baguette.families.paris.inspection import DAMAGED, MISSING, inspect

    if not sys.stderr.isatty():
        quiet()
    remote = fetch(args.repo, args.dir, experts, args.revision)
    found = inspect(args.dir)
    asked = {f"expert_{n}" for n in experts or remote.experts()} | {"router"}
    bad = found.faults
    for part in found.components:
        if part.state == DAMAGED or (part.state == MISSING and part.name in asked):
            bad = [*bad, f"{part.file} is {part.state}"]
        if part.state != MISSING:
            print("\n".join(part_lines(part)))
    for fault in bad:
        print(fault, file=sys.stderr)
    if bad:
        return 1
    print(f"{args.repo} at {remote.revision[:8]} is in {args.dir}; {found.manifest}")
    return 0


def numbers(text: str) -> list[int]:
    """`0,3` or `0-3,7` -> the experts' numbers; BadInput for anything else."""
    found: set[int] = set()
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?", item)
        if match is None:
            raise BadInput(f"--experts got {text[:40]!r} but expected numbers as 0,3 or 0-3")
        first = int(match[1])
        found |= set(range(first, int(match[2] or first) + 1))
    if not found:
        raise BadInput(f"--experts got {text[:40]!r} but expected numbers as 0,3 or 0-3")
    return sorted(found)
