"""`python -m baguette generate PROMPT`: pictures from a model directory, in this one process.

Called by `baguette.__main__`, and by `python generate.py` at the repository's root. Everything that
can be refused is refused before torch is imported (`options`); files appear whole or not at all
(`pictures` says what is in them). What dies with it: the drawing, and nothing is left of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from baguette.commands.model_dir import near
from baguette.commands.options import STDOUT, Asked, add_options, as_typed, read
from baguette.errors import OutOfMemory, WeightsError, port_class
from baguette.files import write_whole
from baguette.routing_chart import timeline_chart, usage_chart

if TYPE_CHECKING:
    from baguette.commands.pictures import Routing
    from baguette.pipeline import Generation, Pipeline

    Subparsers = argparse._SubParsersAction[Any]

MAX_WIDTH, USAGE_WIDTH = 100, 52
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
    asked = read(args)
    _warn(asked.warnings)
    # Standard output belongs to the record where that was asked for.
    out = sys.stderr if asked.record == STDOUT else sys.stdout
    _say(out, [_what(asked)])
    with _advised(asked):
        pipeline = _load(asked)
        _say(out, pipeline.notes)
        done = _draw(pipeline, asked)
        _finish(pipeline, asked, done, out)
    return 0


def _what(asked: Asked) -> str:
    """One line before the work begins: with which model, and how much there is to do."""
    request, where = asked.requests[0], near(asked.model_dir)
    drawn = f"{request.prompt!r}" if len(asked.requests) == 1 else f"{len(asked.requests)} prompts"
    images = "1 image" if asked.images == 1 else f"{asked.images} images"
    return f"Drawing {drawn} with {where}: {images}, {request.steps} steps, seed {request.seed}"


@contextlib.contextmanager
def _advised(asked: Asked) -> Iterator[None]:
    """Where memory runs out inside, the sentence says what would have fitted."""
    try:
        yield
    except (OutOfMemory, MemoryError, OSError, RuntimeError) as error:
        if port_class(error) != OutOfMemory.name:
            raise
        from baguette.commands.memory import advice

        where, experts = asked.model_dir, asked.config.num_experts
        raise OutOfMemory(advice(where, experts, asked.runtime, asked.images)) from None


def _load(asked: Asked) -> Pipeline:
    """The whole model; importing torch and transformers is most of the wait, so it is said."""
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
    prompts = dict.fromkeys(request.prompt for request in asked.requests)
    _warn(dict.fromkeys(text for p in prompts for text in pipeline.requester.warnings(p)))
    done = []
    for place, request in enumerate(asked.requests, 1):
        name = "step" if len(asked.requests) == 1 else f"prompt {place}/{len(asked.requests)}"
        with _bar(name, request.steps) as progress:
            done.append(pipeline(request, progress))
    return done


@contextlib.contextmanager
def _bar(name: str, steps: int) -> Iterator[Callable[[int, int, list[tuple[int, ...]]], None]]:
    """A bar of steps with the experts asked, on standard error, only where it is a terminal."""
    from tqdm import tqdm

    with tqdm(total=steps, desc=name, disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(step: int, _steps: int, experts: list[tuple[int, ...]]) -> None:
            asked = sorted({expert for image in experts for expert in image})
            bar.set_postfix_str("asking " + " ".join(f"E{e}" for e in asked), refresh=False)
            bar.update(step - bar.n)

        yield show
        bar.update(steps - bar.n)


def _finish(pipeline: Pipeline, asked: Asked, done: list[Generation], out: TextIO) -> None:
    """Write everything or nothing, then say what is there."""
    from baguette.commands import pictures

    about = pictures.texts_of_model(pipeline, asked)
    files = pictures.pictures(asked, done, about)
    record = pictures.record(pipeline, asked, done, list(files), about)
    routing = pictures.routing(done)
    more = {}
    if asked.figure is not None:
        more[asked.figure] = pictures.figure(pipeline, asked, routing)
    if isinstance(asked.record, os.PathLike):
        more[asked.record] = pictures.as_json(record)
    write_whole({**files, **more})
    if asked.chart:
        _say(out, _charts(asked, routing, _colour(out)))
    _say(out, [_summary(record, [near(path) for path in (*files, *more)])])
    if asked.record == STDOUT:
        sys.stdout.write(pictures.as_json(record).decode())


def _charts(asked: Asked, routing: Routing, colour: bool) -> list[str]:
    """The card's two boxes."""
    width = min(shutil.get_terminal_size((80, 24)).columns, MAX_WIDTH)
    experts = asked.config.num_experts
    lines = usage_chart(routing, experts, min(width, USAGE_WIDTH), colour)
    lines += timeline_chart(routing[asked.image], experts, width, colour)
    if len(routing) > 1:
        last = len(routing) - 1
        lines.append(f"(the timeline is that of image {asked.image}; --image 0..{last} chooses)")
    return lines


def _summary(record: dict[str, Any], files: list[str]) -> str:
    """Files, seconds, images per second."""
    seconds, images = record["seconds"]["total"], record["n"]
    shown = ", ".join(files if len(files) <= 4 else [*files[:2], "...", files[-1]])
    many = "1 image" if images == 1 else f"{images} images"
    return f"{shown}: {many} in {seconds:.1f} s, {images / seconds:.2f} images/s"


def _colour(stream: TextIO) -> bool:
    """A terminal, unless its person wants none (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _say(stream: TextIO, lines: list[str]) -> None:
    if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode gets question marks
        stream.reconfigure(errors="replace")
    for line in lines:
        print(line, file=stream, flush=True)


def _warn(texts: Any) -> None:
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)
