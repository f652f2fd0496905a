"""`python -m baguette generate PROMPT`: pictures from a model directory, in this one process.

Called by `baguette.__main__`, and by `python generate.py` at the repository's root. Everything that
can be refused is refused before torch is imported (`asked`); files appear whole or not at all
(`drawn`, and `pictures` says what is in them). What dies with it: the drawing, and nothing is left.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any

from baguette.commands import on_cluster
from baguette.commands.asked import Asked, as_typed, read
from baguette.commands.drawn import counted, finish, say, stream, warn
from baguette.commands.flags import add_options
from baguette.commands.model_dir import near
from baguette.commands.progress import bar
from baguette.errors import OutOfMemory, WeightsError, port_class
from baguette.runtime import wait_quietly

if TYPE_CHECKING:
    from baguette.generation import Generation
    from baguette.pipeline import Pipeline

    Subparsers = argparse._SubParsersAction[Any]

EXAMPLES = """\
examples:
  python -m baguette generate "a red circle on a blue background"
  python -m baguette generate --prompt "a star" --num_samples 4 --topk full --output out/stars.png
  python -m baguette generate "a star" --seed 7 --visualize --json out/star.json
"""


def add_to(parsers: Subparsers) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "generate",
        help="draw a prompt",
        description="Draw a prompt with a model directory, in this one process.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, load, draw, write, tell."""
    if args.cluster is not None:
        return on_cluster.run(args)
    asked = read(args)
    warn(asked.warnings)
    out = stream(asked.outputs)
    say(out, [_what(asked)])
    with _advised(asked):
        pipeline = _load(asked)
        say(out, pipeline.notes)
        done = _draw(pipeline, asked)
        from baguette.commands.pictures import gather  # knows torch

        finish(gather(pipeline, asked, done), asked.outputs)
    return 0


def _what(asked: Asked) -> str:
    """One line before the work begins: with which model, and how much there is to do."""
    request, where = asked.requests[0], near(asked.model_dir)
    drawn = f"{request.prompt!r}" if len(asked.requests) == 1 else f"{len(asked.requests)} prompts"
    images = counted(asked.outputs.images, "image")
    return f"Drawing {drawn} with {where}: {images}, {request.steps} steps, seed {request.seed}"


@contextlib.contextmanager
def _advised(asked: Asked) -> Iterator[None]:
    """Where memory runs out inside, the sentence says what would have fitted."""
    try:
        yield
    except (OutOfMemory, MemoryError, OSError, RuntimeError) as error:
        if port_class(error) != OutOfMemory.name:
            raise
        from baguette import room
        from baguette.device import named
        from baguette.families.paris.loading import sizes

        if isinstance(error, room.DoesNotFit):
            raise
        device = named(asked.runtime.device)
        sentence = room.advice(
            sizes(asked.model_dir), asked.config.num_experts, asked.runtime,
            asked.outputs.images, device.type != "cpu", room.total(device),
        )  # fmt: skip
        raise OutOfMemory(sentence) from None


def _load(asked: Asked) -> Pipeline:
    """The whole model; importing torch and transformers is most of the wait, so it is said."""
    wait_quietly()
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"loading {near(asked.model_dir)} ...", end="", file=sys.stderr, flush=True)
    try:
        with _interruptible(), as_typed():
            import baguette

            return baguette.load(asked.model_dir, **asdict(asked.runtime))
    except ImportError as error:
        raise WeightsError(f"{error.name} is not installed: run `make setup`") from None
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt ends what runs inside even where a library has caught it.

    Libraries catch everything around their optional imports, and an import holds for seconds.
    """
    seen = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            raise KeyboardInterrupt


def _draw(pipeline: Pipeline, asked: Asked) -> list[Generation]:
    """Every prompt, one after the other."""
    warn(text for one in asked.requests for text in pipeline.requester.warnings(one.prompt))
    done = []
    for place, request in enumerate(asked.requests, 1):
        name = "step" if len(asked.requests) == 1 else f"prompt {place}/{len(asked.requests)}"
        with bar(name, request.steps) as progress:
            done.append(pipeline(request, progress))
    return done
