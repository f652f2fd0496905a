"""`python -m baguette benchmark`: how fast this machine draws, in what memory.

Called by `baguette.__main__` and by benchmark.py at the repository's root. Options are checked
before torch is imported; the report goes to standard output, or whole into a file. What dies with
it: the processes that measure, and the random weights of --random.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.commands.asked import as_typed
from baguette.commands.flags import PRECISION
from baguette.commands.model_dir import given_model
from baguette.errors import BadInput
from baguette.files import check_option, check_room, write_whole
from baguette.request import MAX_IMAGES
from baguette.runtime import PRECISIONS, Runtime, cores, wait_quietly

if TYPE_CHECKING:
    from baguette.benchmark.measuring import Plan
    from baguette.families.paris.config import ModelConfig

OFFLOADS, BATCHES = (0, 4, 6), (1, 4, 16)
QUICK_BATCHES, QUICK_IMAGES = (1, 4), 4
ROUNDS, QUICK_ROUNDS = 5, 3
IMAGES = 16
EXAMPLES = """\
examples:
  python benchmark.py --quick
  python benchmark.py --output results.md
  python benchmark.py --precision bf16,int8 --offload 0 --batch 1,16 --compile --json out/bench.json
  python benchmark.py --random --precision bf16,int8 --offload 0 --output results.md
"""


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "benchmark",
        help="measure speed and memory",
        description="Measure images per second, time per part and peak memory of every setting "
        "that fits, and a plain loop beside it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--quick", action="store_true",
        help="only what `generate` does by itself, 1 and 4 images, and the plain loop: a minute at "
        "most with paris-mini",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE.md", help="where the report goes (default: printed)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for programs")
    _add_what(parser)
    parser.set_defaults(run=run)


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="model directory (default: generate's)"
    )
    parser.add_argument(
        "--random", action="store_true",
        help="random weights of the published Paris' sizes instead of a model: the routing is "
        "imposed, over all experts evenly and always on the same",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="(default: every core)")
    parser.add_argument("--num_steps", "--num-steps", type=int, metavar="N", help="(the model's)")
    parser.add_argument(
        "--compile", action="store_true", help="measure with torch.compile too, and without"
    )
    parser.add_argument(
        "--precision", type=_words, metavar="P,...", help=f"(default {','.join(PRECISIONS)})"
    )
    parser.add_argument(
        "--offload", type=_numbers, metavar="N,...", help="(default 0,4,6; only with a GPU)"
    )
    parser.add_argument("--batch", type=_numbers, metavar="N,...", help="(default 1,4,16)")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        return tuple(int(part) for part in text.split(","))
    raise argparse.ArgumentTypeError(f"got {text[:40]!r} but expected numbers like 1,4,16")


@dataclass(frozen=True)
class Asked:
    """The options, checked; None is what nobody named."""

    steps: int
    precisions: Sequence[str] | None
    offloads: Sequence[int]
    batches: Sequence[int]


def run(args: argparse.Namespace) -> int:
    """Check, measure, write."""
    wait_quietly()
    _check_places(args)
    with _model(args) as (model_dir, config):
        asked = _asked(args, config)
        from baguette.benchmark.measuring import measure
        from baguette.benchmark.report import as_record, markdown

        with as_typed():
            plan = _plan(args, asked, model_dir)
        with _telling() as tell:
            if args.random:
                tell("writing random weights")
                _make(model_dir)
            results = measure(plan, tell)
    text = markdown(results)
    files = {args.output: text.encode()} if args.output else {}
    if args.json:
        files[args.json] = (json.dumps(as_record(results), indent=1) + "\n").encode()
    write_whole(files)
    if not args.output:
        print(text, end="")
    for path in files:
        print(f"{path} is written", file=sys.stderr)
    return 0


def _check_places(args: argparse.Namespace) -> None:
    if args.output and args.json and args.output.absolute() == args.json.absolute():
        raise BadInput(f"--output and --json name the same file {str(args.output)!r}")
    for option, path in (("--output", args.output), ("--json", args.json)):
        if path is not None:
            check_option(option, path)


@contextlib.contextmanager
def _model(args: argparse.Namespace) -> Iterator[tuple[Path, ModelConfig]]:
    """The model directory and its config; for --random a temporary one, still empty."""
    from baguette.families.paris.config import ModelConfig, published_root

    if not args.random:
        model_dir = given_model(args.model)
        yield model_dir, ModelConfig.read(model_dir)
        return
    if args.model is not None:
        raise BadInput("--random and --model exclude each other: give one of them")
    with tempfile.TemporaryDirectory(prefix="baguette-") as place:
        yield Path(place), ModelConfig.from_root(published_root(), Path(place))


def _asked(args: argparse.Namespace, config: ModelConfig) -> Asked:
    """Every option held against the model; BadInput names it as it is typed."""
    experts = config.num_experts
    asked = Asked(
        steps=config.defaults.steps if args.num_steps is None else args.num_steps,
        precisions=args.precision,
        offloads=args.offload or tuple(n for n in OFFLOADS if n < experts),
        batches=args.batch or (QUICK_BATCHES if args.quick else BATCHES),
    )
    threads = cores() if args.threads is None else args.threads
    with as_typed():
        for precision in asked.precisions or PRECISIONS:
            for offload in asked.offloads:
                Runtime(precision, args.device, threads, offload).check(experts)
    for batch in asked.batches:
        with as_typed():
            _check_batch(config, batch, asked.steps)
    return asked


def _check_batch(config: ModelConfig, batch: int, steps: int) -> None:
    if not 1 <= batch <= MAX_IMAGES:
        raise BadInput(f"batch got {batch} but expected 1..{MAX_IMAGES}")
    config.request(config.example_prompt, n=batch, steps=steps).check(config.num_experts)


def _make(model_dir: Path) -> None:
    from baguette.families.paris import full_size

    check_room(model_dir, full_size.DISK_BYTES)
    full_size.build(model_dir)


def _plan(args: argparse.Namespace, asked: Asked, model_dir: Path) -> Plan:
    """What that comes to on this device."""
    from baguette.benchmark import settings
    from baguette.benchmark.measuring import Plan
    from baguette.device import named

    on_gpu = named(args.device).type != "cpu"
    routings = (settings.EVEN, settings.ONE) if args.random else (settings.OWN,)
    compiled = (False, True) if args.compile else (False,)
    precisions = asked.precisions or ((PRECISION,) if args.quick else PRECISIONS)
    offloads = (0,) if args.quick and args.offload is None else asked.offloads
    found = settings.every(precisions, offloads, asked.batches, compiled, routings)
    return Plan(
        model_dir=model_dir,
        device=args.device,
        threads=cores() if args.threads is None else args.threads,
        steps=asked.steps,
        rounds=QUICK_ROUNDS if args.quick else ROUNDS,
        # Without a GPU offloading is a row that says so, and one is enough.
        settings=[s for s in found if on_gpu or not s.offload or s.batch == asked.batches[-1]],
        compare=QUICK_IMAGES if args.quick else IMAGES,
        full=not args.quick,
        routing=settings.EVEN if args.random else settings.OWN,
    )


@contextlib.contextmanager
def _telling() -> Iterator[Any]:
    """What is being done, on one line of a terminal; nothing elsewhere."""
    shown = sys.stderr.isatty()

    def tell(what: str) -> None:
        if shown:
            print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        tell("")
