"""`python -m baguette generate PROMPT`: the reference pipeline, its picture and its record.

Called by `baguette.__main__`. Everything that can be refused is refused before torch is imported;
files appear whole or not at all. The record (--json) has the fields of the cluster's out/demo.json
where they apply, so that the two can be held against each other.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from baguette.errors import BadInput, WeightsError
from baguette.files import check_writable, write_whole
from baguette.request import GenerationRequest
from baguette.routing_chart import timeline_chart, usage_chart
from baguette.sheet import sheet

if TYPE_CHECKING:
    from baguette.families.paris.config import ModelConfig
    from baguette.generation import Generation
    from baguette.pipeline import Pipeline

    Subparsers = argparse._SubParsersAction[Any]

MODEL = Path("weights/paris-mini")
OUTPUT = Path("out/generate.png")
MAX_THREADS = 256
MAX_WIDTH = 100
EXAMPLES = """\
examples:
  python -m baguette generate "a red circle on a blue background"
  python -m baguette generate "a star" --n 4 --steps 20 --top-k full --output out/stars.png
  python -m baguette generate "a star" --seed 7 --threads 2 --json out/star.json
"""


def add_to(parsers: Subparsers) -> None:
    """Add this command and its options; what is left out comes from the model's own defaults."""
    parser = parsers.add_parser(
        "generate",
        help="draw a prompt",
        description="Draw a prompt with a model directory, in this one process.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", help="what to draw")
    parser.add_argument("--model", type=Path, help=f"model directory (default {MODEL})")
    parser.add_argument("--n", type=_whole, help="how many images, from seed, seed + 1, ...")
    parser.add_argument("--steps", type=_whole, help="denoising steps")
    parser.add_argument("--guidance-scale", type=_number, help="how closely to follow the prompt")
    parser.add_argument("--top-k", type=_top_k, help="experts asked at each step, or full")
    parser.add_argument("--seed", type=_whole, help="seed of the first image")
    parser.add_argument("--negative-prompt", default="", help="what to keep away from")
    parser.add_argument("--threads", type=_whole, default=1, help="compute threads (default 1)")
    parser.add_argument(
        "--output",
        type=Path,
        default=OUTPUT,
        help=f"the picture (default {OUTPUT}); of several a sheet, and each as NAME_1.png, ...",
    )
    parser.add_argument("--json", type=Path, help="also write how it was drawn to this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check, load, draw, write, tell."""
    from baguette.families.paris.config import ModelConfig

    model_dir = args.model or default_model()
    config = ModelConfig.read(model_dir)
    request = _request(args, config)
    _check_places(args)
    pipeline = _load(model_dir, args.threads)
    for warning in pipeline.requester.warnings(request.prompt):
        print(f"warning: {warning}", file=sys.stderr)
    with _bar(request.steps) as progress:
        done = pipeline(request, progress)
    pictures = _pictures(done, args.output)
    record = _record(pipeline, done, list(pictures))
    files = dict(pictures)
    if args.json:
        files[args.json] = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    write_whole(files)
    _tell(record, config.num_experts)
    return 0


def default_model() -> Path:
    """weights/paris-mini of the repository this package lies in, or of the current directory."""
    beside = Path(__file__).resolve().parents[3] / MODEL
    return beside if (beside / "config.json").is_file() else Path.cwd() / MODEL


def _request(args: argparse.Namespace, config: ModelConfig) -> GenerationRequest:
    """The checked request; BadInput names the option as it is typed."""
    for name in ("prompt", "negative_prompt"):
        try:
            getattr(args, name).encode()
        except UnicodeEncodeError:
            raise BadInput(f"{_option(name)} is not text in UTF-8") from None
    names = ("n", "steps", "guidance_scale", "seed")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.top_k is not None:
        given["top_k"] = None if args.top_k == "full" else args.top_k
    request = config.request(args.prompt, negative_prompt=args.negative_prompt, **given)
    try:
        request.check(config.num_experts)
    except BadInput as error:
        name, _, rest = str(error).partition(" ")
        more = " or full" if name == "top_k" else ""
        raise BadInput(f"{_option(name)} {rest}{more}") from None
    if not 1 <= args.threads <= MAX_THREADS:
        raise BadInput(f"--threads got {args.threads} but expected 1..{MAX_THREADS}")
    return request


def _option(name: str) -> str:
    return name if name == "prompt" else "--" + name.replace("_", "-")


def _check_places(args: argparse.Namespace) -> None:
    """Refuse files that could not be written, before time is spent on what goes into them."""
    if args.output.suffix.lower() != ".png":
        raise BadInput(f"--output got {str(args.output)!r} but expected a name that ends in .png")
    for option, path in (("--output", args.output), ("--json", args.json)):
        if path is None:
            continue
        try:
            check_writable(path)
        except OSError as error:
            raise BadInput(f"{option} {str(path)!r} cannot be written: {error.strerror}") from None


def _load(model_dir: Path, threads: int) -> Pipeline:
    """The whole model; importing torch and transformers is most of the wait, so it is said."""
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"loading {model_dir} ...", end="", file=sys.stderr, flush=True)
    try:
        with _interruptible():
            import baguette

            return baguette.load(model_dir, threads=threads)
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


@contextlib.contextmanager
def _bar(steps: int) -> Iterator[Callable[[int, int, list[tuple[int, ...]]], None]]:
    """A bar of steps with the experts asked, on standard error, only where it is a terminal."""
    from tqdm import tqdm

    with tqdm(total=steps, desc="step", disable=not sys.stderr.isatty(), leave=False) as bar:

        def show(step: int, _steps: int, experts: list[tuple[int, ...]]) -> None:
            asked = sorted({expert for image in experts for expert in image})
            bar.set_postfix_str("asking " + " ".join(f"E{e}" for e in asked), refresh=False)
            bar.update(step - bar.n)

        yield show
        bar.update(steps - bar.n)


def _pictures(done: Generation, output: Path) -> dict[Path, bytes]:
    """File -> PNG. One image: `output`; of several first their sheet there, then each."""
    from baguette.image import to_png

    pngs = [to_png(pixels, _png_text(done.request, i)) for i, pixels in enumerate(done.pixels)]
    if len(pngs) == 1:
        return {output: pngs[0]}
    names = [output.with_stem(f"{output.stem}_{i}") for i in range(1, len(pngs) + 1)]
    return {output: sheet(pngs), **dict(zip(names, pngs, strict=True))}


def _png_text(request: GenerationRequest, i: int) -> dict[str, str]:
    """What a cluster writes into its pictures too: only what does not change from run to run."""
    return {
        "baguette:guidance_scale": repr(float(request.guidance_scale)),
        "baguette:seed": str(request.seed + i),
        "baguette:steps": str(request.steps),
        "baguette:top_k": str(request.top_k or "full"),
    }


def _record(pipeline: Pipeline, done: Generation, files: list[Path]) -> dict[str, Any]:
    """Seed, steps, experts and weights per step, seconds per part, hashes: as out/demo.json."""
    values = done.to_json()
    own = files[-len(values["images"]) :]
    images = [
        {**image, "file": str(file)} for image, file in zip(values["images"], own, strict=True)
    ]
    prompt = done.request.prompt
    return {
        **values,
        "model": pipeline.config.name,
        "prompt": prompt,
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
        "negative_prompt": done.request.negative_prompt,
        "n": done.request.n,
        "deterministic": True,
        "keys": pipeline.requester.keys,
        "out": str(files[0]),
        "images": images,
        "pixels_sha256": images[0]["pixels_sha256"],
    }


def _tell(record: dict[str, Any], num_experts: int) -> None:
    """The routing as the demo draws it, the time per part, the files and their hashes."""
    width = min(shutil.get_terminal_size((80, 24)).columns, MAX_WIDTH)
    colour = sys.stdout.isatty()
    images = [[step["experts"] for step in image] for image in record["routing"]]
    lines = usage_chart(images, num_experts, min(width, 60), colour)
    lines += timeline_chart(images[0], num_experts, width, colour)
    lines.append("")
    lines.append(
        "Seconds per part: " + "  ".join(f"{k} {v:.2f}" for k, v in record["seconds"].items())
    )
    lines += [f"pixels sha256 {image['pixels_sha256']}" for image in record["images"]]
    lines.append(f"{record['out']} is there (seed {record['seed']})")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without Unicode gets question marks
        sys.stdout.reconfigure(errors="replace")
    print("\n".join(lines))


def _whole(text: str) -> int:
    with contextlib.suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"got {text[:40]!r} but expected a whole number")


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        return float(text)
    raise argparse.ArgumentTypeError(f"got {text[:40]!r} but expected a number")


def _top_k(text: str) -> int | str:
    if text == "full":
        return text
    with contextlib.suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"got {text[:40]!r} but expected a whole number or full")
