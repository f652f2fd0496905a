"""Draws docs/PERFORMANCE.md's plots from what `make bench` and `make bench-throughput` recorded.

An SVG for each part that was measured; the same records give the same bytes. What was measured
with --small is refused. Called by `make plots`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher import command_line, plots
from launcher.options import ROOT, BadOption

RECORDS = (ROOT / "out" / "bench.json", ROOT / "out" / "bench_throughput.json")
IMAGES = ROOT / "docs" / "images"
EXAMPLES = """\
examples:
  .venv/bin/python scripts/plots.py
  .venv/bin/python scripts/plots.py out/bench.json --output /tmp/plots
"""


def main() -> int:
    """Read, draw, say what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", nargs="*", type=Path, help="those of out/ that are there")
    parser.add_argument("--output", type=Path, default=IMAGES, help="where the plots go")
    args = parser.parse_args()
    return command_line.run(lambda: draw(args.records, args.output))


def draw(records: Sequence[Path], output: Path) -> int:
    """Every record that was named, or is there."""
    chosen = records or [path for path in RECORDS if path.exists()]
    if not chosen:
        raise BadOption(
            "nothing was measured here yet: `make bench` and `make bench-throughput` write "
            "out/bench.json and out/bench_throughput.json"
        )
    for record in [read(path) for path in chosen]:
        for written in plots.write(plots.of(record), output):
            print(os.path.relpath(written))
    return 0


def read(path: Path) -> dict[str, Any]:
    """A record of a whole measurement."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadOption(f"{path} cannot be read ({error}): measure again") from None
    if not isinstance(record, dict) or record.get("small"):
        raise BadOption(f"{path} is not of a whole measurement: measure again without --small")
    return record


if __name__ == "__main__":
    sys.exit(main())
