"""`python -m baguette quantize --input DIR --output DIR --format bf16|int8`.

Called by `baguette.__main__` and by quantize.py at the repository's root. Reads PyTorch
checkpoints, the published layout or Baguette's own, writes Baguette's own. Options and names are
checked before torch is imported; interrupted work leaves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baguette.errors import WeightsError
from baguette.families.paris.conversion import FORMATS, Converted, Plan, Progress, convert
from baguette.files import check_option, write_whole

MIB = 1 << 20
EXAMPLES = """\
examples:
  python quantize.py --input /path/to/weights --output ./weights/bf16 --format bf16
  python quantize.py --input ./weights/bf16 --output ./weights/int8 --format int8
  python -m baguette quantize --input weights/paris --output weights/int8 --json int8.json
"""


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "quantize",
        help="convert a model directory to bf16 or INT8",
        description="Write a model anew, as bf16 or with INT8 experts, in Baguette's own layout.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="DIR",
        help="PyTorch checkpoints (expert_0.pt, ...), the published layout, or Baguette's own",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--format", choices=FORMATS, default="int8", help="(default int8)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, convert, tell; 1 where the input is damaged or the disk full."""
    try:
        plan = Plan.of(args.input, args.output, args.format)
        plan.check_target(args.force)
        if args.json is not None:
            check_option("--json", args.json)
        with _bar() as progress:
            done = convert(plan, _tell, progress)
        if args.json:
            write_whole({args.json: _record(plan, done).encode()})
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or args.output}: {error.strerror}; make room", file=sys.stderr)
        return 1
    print("\n".join(table(done)))
    print(f"{plan.target} is there: {_mib(sum(one.bytes_after for one in done))} of weights")
    return 0


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """Bytes written of the component in hand, on standard error, only where it is a terminal."""
    from tqdm import tqdm

    options = {"unit": "B", "unit_scale": True, "leave": False, "disable": not sys.stderr.isatty()}
    with tqdm(desc="reading", total=0, **options) as bar:

        def show(name: str, written: int, total: int) -> None:
            if written < bar.n or bar.total != total:
                bar.reset(total)
            bar.set_description(name, refresh=False)
            bar.update(written - bar.n)

        yield show


def _tell(one: Converted) -> None:
    from tqdm import tqdm

    worst = max(one.errors, key=lambda layer: one.errors[layer])
    text = (
        f"{one.name:<9} {_mib(one.bytes_before):>12} -> {_mib(one.bytes_after):>12}"
        f"   worst relative error {one.errors[worst]:.3%} in {worst}"
    )
    tqdm.write(text, file=sys.stdout)  # above the bar
    sys.stdout.flush()


def _mib(count: int) -> str:
    return f"{count / MIB:,.1f} MiB"


def table(done: list[Converted]) -> list[str]:
    """Percent of worst relative error: a line a layer, a column a component."""
    layers = list(dict.fromkeys(layer for one in done for layer in one.errors))
    width = max(len(layer) for layer in layers)
    heads = "".join(f"{_short(one.name):>8}" for one in done)
    lines = ["", "Worst relative error of an output channel per layer, in %:"]
    lines.append(f"{'':<{width}}{heads}")
    for layer in layers:
        cells = [f"{100 * one.errors[layer]:.3f}" if layer in one.errors else "" for one in done]
        lines.append(f"{layer:<{width}}" + "".join(f"{cell:>8}" for cell in cells))
    return [line.rstrip() for line in lines]


def _short(name: str) -> str:
    return name.replace("expert_", "E")


def _record(plan: Plan, done: list[Converted]) -> str:
    values = {
        "model": plan.model.name,
        "input": str(plan.source),
        "output": str(plan.target),
        "format": plan.format,
        "components": {
            one.name: {
                "file": one.file,
                "bytes_before": one.bytes_before,
                "bytes_after": one.bytes_after,
                "worst_relative_error": one.errors,
            }
            for one in done
        },
    }
    return json.dumps(values, indent=1) + "\n"
