"""`python -m baguette inspect DIR`: what a model directory holds, from headers alone.

Called by `baguette.__main__`. Exit status 0 when every component and part is there and fits, 1 when
something is missing or damaged, which is then named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from baguette.errors import WeightsError
from baguette.families.paris.inspection import MISSING, WHOLE, Inspection, Part, inspect

NAMED = 12
EXAMPLES = """\
examples:
  python -m baguette inspect weights/paris
  python -m baguette inspect weights/int8 --json | jq '.components[] | {name, dtypes}'
"""


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "inspect",
        help="say what a model directory holds",
        description="Say what a model directory holds, without reading its weights.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model_dir", type=Path, metavar="DIR", help="model directory")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is there; 1 when something is missing or damaged."""
    try:
        found = inspect(args.model_dir)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps({**asdict(found), "whole": found.whole}, indent=1))
    else:
        print("\n".join(_lines(found)))
    return 0 if found.whole else 1


def _lines(found: Inspection) -> Iterator[str]:
    layout = " and ".join(found.layouts) or "no component here"
    yield f"{found.name} in {found.directory} (layout: {layout})"
    latent = " x ".join(map(str, found.config["latent"]))
    yield f"{found.config['num_experts']} experts, latent {latent}; {_pairs(found, 'defaults')}"
    yield f"settings: {_settings(found.settings)}"
    yield ""
    for part in found.components:
        yield from part_lines(part)
    yield ""
    for name, folder in found.folders.items():
        yield f"{name:<13} {folder or MISSING}"
    yield f"{'manifest':<13} {found.manifest}"
    yield from found.faults


def _pairs(found: Inspection, block: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.config[block].items())


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value != {})


def part_lines(part: Part) -> Iterator[str]:
    """One line of a whole component; below it a line for each kind of fault."""
    if part.state == MISSING:
        yield f"{part.name:<9} missing: {part.file}"
        return
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(part.dtypes.items()))
    yield (
        f"{part.name:<9} {part.parameters:>13,} parameters in {part.tensors} tensors ({dtypes}), "
        f"{part.bytes / (1 << 20):,.1f} MiB"
    )
    if part.state == WHOLE:
        return
    for title, names in part.faults.items():
        more = f" and {len(names) - NAMED} more (--json)" if len(names) > NAMED else ""
        yield f"          {title}: {', '.join(names[:NAMED])}{more}"
