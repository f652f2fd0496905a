"""The options of `generate`: how they are spelt, what they default to, what is refused.

Called by `commands.generate`. Imports no torch: whatever can be refused is refused here, before a
second is spent. What a request may hold is `baguette.request`'s business and what a process may be
told is `baguette.runtime`'s; this module gives their refusals the names that were typed.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.commands.model_dir import given_model
from baguette.errors import BadInput
from baguette.files import check_writable
from baguette.request import GenerationRequest
from baguette.runtime import PRECISIONS, Runtime, cores

if TYPE_CHECKING:
    from baguette.families.paris.config import ModelConfig

SAMPLES = 16
PRECISION, CANONICAL_PRECISION = "bf16", "fp32"
USUAL_STEPS, USUAL_CFG = (15, 50), (5.0, 12.0)
MAX_PROMPTS_BYTES = 1 << 20
MAX_IMAGES = 1024  # of one command: what they and their sheet take stays below a gigabyte
TEXT, STDOUT = "text", "-"
# A request's fields -> the options that set them; the runtime's fields are spelt as they are.
OPTIONS = {
    "n": "--num_samples",
    "steps": "--num_steps",
    "guidance_scale": "--cfg_scale",
    "top_k": "--topk",
}


@dataclass(frozen=True)
class Asked:
    """What a person asked for, checked. `figure` is where --visualize draws, or None.

    `chart` says whether the routing is to be printed, `image` whose timeline. `record` is where the
    JSON goes, STDOUT for standard output.
    """

    model_dir: Path
    config: ModelConfig
    runtime: Runtime
    requests: tuple[GenerationRequest, ...]
    output: Path
    separate: bool
    embed_prompt: bool
    chart: bool
    figure: Path | None
    image: int
    record: Path | str | None
    warnings: tuple[str, ...]

    @property
    def images(self) -> int:
        """How many pictures in all."""
        return sum(request.n for request in self.requests)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Every flag of the Baguette card, and ours; what is left out comes from the model."""
    _add_request(parser)
    _add_machine(parser)
    _add_output(parser)


def _flag(parser: Any, name: str, **more: Any) -> None:
    """--an_option, also spelt --an-option."""
    parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), **more)


def _add_request(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to draw")
    group.add_argument("words", nargs="?", metavar="PROMPT", help="the same as --prompt")
    _flag(group, "prompt", help='what to draw (default: the model\'s example, or "a cute cat")')
    _flag(group, "negative_prompt", default="", metavar="TEXT", help="what to keep away from")
    _flag(group, "prompts_file", type=Path, metavar="FILE", help="a prompt per line instead")
    _flag(
        group, "num_samples", type=_whole, metavar="N",
        help=f"images per prompt, from seed, seed + 1, ... (default {SAMPLES}; 1 with a file)",
    )  # fmt: skip
    _flag(
        group, "num_steps", type=_whole, metavar="N",
        help="denoising steps (default: the model's, or 30; 15-50 are usual)",
    )  # fmt: skip
    _flag(
        group, "cfg_scale", type=_number, metavar="X",
        help="how closely to follow the prompt (default: the model's, or 7.5; 5-12 are usual)",
    )  # fmt: skip
    _flag(
        group, "topk", type=_top_k, metavar="K",
        help="experts asked at each step, or full (default: the model's, or 2)",
    )  # fmt: skip
    _flag(group, "seed", type=_whole, metavar="N", help="seed of the first image (default 999)")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with what")
    _flag(
        group, "model", type=Path, metavar="DIR",
        help="model directory (default: weights/paris, else weights/bf16 or weights/int8 by "
        "--precision, else weights/paris-mini)",
    )  # fmt: skip
    _flag(
        group, "precision", metavar="P",
        help=f"how weights are kept: {', '.join(PRECISIONS)} (default {PRECISION})",
    )  # fmt: skip
    _flag(
        group, "offload", type=_whole, default=0, metavar="N",
        help="experts kept in CPU memory (default 0)",
    )  # fmt: skip
    _flag(group, "device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    _flag(group, "compile", action="store_true", help="compile the networks first: slow, then fast")
    _flag(group, "threads", type=_whole, metavar="N", help="compute threads (default: every core)")
    _flag(
        group, "deterministic", action="store_true",
        help="the bytes a cluster gives: one image and one expert at a time, in fp32, on one "
        "thread unless --precision or --threads say otherwise",
    )  # fmt: skip


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what comes out")
    _flag(
        group, "output", type=Path, metavar="FILE",
        help="the picture, of several a grid (default output_PRECISION.png)",
    )  # fmt: skip
    _flag(group, "separate", action="store_true", help="a file per image, NAME_1.png and so on")
    _flag(
        group, "visualize", nargs="?", const=TEXT, metavar="FILE.png",
        help="print which experts were asked; with a file, draw it there",
    )  # fmt: skip
    _flag(
        group, "image", type=_whole, metavar="I",
        help="whose routing timeline --visualize shows, from 0 (default 0)",
    )  # fmt: skip
    _flag(group, "embed_prompt", action="store_true", help="write the prompt into the PNG too")
    _flag(
        group, "json", nargs="?", const=STDOUT, metavar="FILE.json",
        help="how it was drawn, for programs; - is standard output, and nothing else goes there",
    )  # fmt: skip


def read(args: argparse.Namespace) -> Asked:
    """Everything checked, nothing computed; BadInput names the option as it is typed."""
    from baguette.families.paris.config import ModelConfig

    precision = args.precision or (CANONICAL_PRECISION if args.deterministic else PRECISION)
    model_dir = given_model(args.model, precision)
    config = ModelConfig.read(model_dir)
    requests = _requests(args, config)
    asked = Asked(
        model_dir=model_dir,
        config=config,
        runtime=_runtime(args, precision, config.num_experts),
        requests=requests,
        output=args.output or Path(f"output_{precision}.png"),
        separate=args.separate,
        embed_prompt=args.embed_prompt,
        chart=args.visualize == TEXT,
        figure=None if args.visualize in (None, TEXT) else Path(args.visualize),
        image=args.image or 0,
        record=args.json if args.json in (None, STDOUT) else Path(args.json),
        warnings=_unusual(requests[0], config),
    )
    _check_image(args, asked)
    _check_places(asked)
    return asked


def _requests(args: argparse.Namespace, config: ModelConfig) -> tuple[GenerationRequest, ...]:
    given = {
        "n": args.num_samples,
        "steps": args.num_steps,
        "guidance_scale": args.cfg_scale,
        "seed": args.seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given.setdefault("n", 1 if args.prompts_file else SAMPLES)
    if args.topk is not None:
        given["top_k"] = None if args.topk == "full" else args.topk
    given["negative_prompt"] = _utf8("--negative_prompt", args.negative_prompt)
    given["deterministic"] = args.deterministic
    requests = []
    for where, prompt in _prompts(args, config):
        request = config.request(prompt, **given)
        with as_typed(where):
            request.check(config.num_experts)
        requests.append(request)
    if len(requests) * requests[0].n > MAX_IMAGES:
        raise BadInput(
            f"--prompts_file holds {len(requests)} prompts, with --num_samples {requests[0].n} "
            f"more than {MAX_IMAGES} images: draw it in parts"
        )
    return tuple(requests)


def _prompts(args: argparse.Namespace, config: ModelConfig) -> list[tuple[str, str]]:
    """Each prompt under what a refusal is to call it."""
    given = {"PROMPT": args.words, "--prompt": args.prompt, "--prompts_file": args.prompts_file}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise BadInput(f"{' and '.join(named)} exclude each other: give one of them")
    if args.prompts_file is not None:
        return _lines(args.prompts_file)
    if not named:
        return [("the model's example prompt", config.example_prompt)]
    return [("--prompt", _utf8("--prompt", given[named[0]]))]


def _lines(path: Path) -> list[tuple[str, str]]:
    """Every line that is not empty, with its number."""
    option = f"--prompts_file {str(path)!r}"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROMPTS_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{option} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(f"{option} is not text in UTF-8 (line {line})") from None
    if len(content) > MAX_PROMPTS_BYTES:
        raise BadInput(f"{option} is larger than {MAX_PROMPTS_BYTES} bytes; is it a list?")
    lines = [(f"{option} line {i}:", line.strip()) for i, line in enumerate(text.split("\n"), 1)]
    if not any(line for _, line in lines):
        raise BadInput(f"{option} holds no prompt; write one per line")
    return [(where, line) for where, line in lines if line]


def _runtime(args: argparse.Namespace, precision: str, num_experts: int) -> Runtime:
    if args.compile and args.deterministic:
        raise BadInput("--compile and --deterministic exclude each other: give one of them")
    runtime = Runtime(
        precision=precision,
        device=args.device,
        threads=args.threads if args.threads is not None else 1 if args.deterministic else cores(),
        offload=args.offload,
        compile=args.compile,
    )
    with as_typed():
        runtime.check(num_experts)
    return runtime


def _unusual(request: GenerationRequest, config: ModelConfig) -> tuple[str, ...]:
    """Values that work and seldom please; what the model itself proposes is usual."""
    seen = (
        ("--num_steps", request.steps, USUAL_STEPS, config.defaults.steps),
        ("--cfg_scale", request.guidance_scale, USUAL_CFG, config.defaults.guidance_scale),
    )
    return tuple(
        f"{option} {value:g} is outside the usual {low:g}-{high:g}"
        for option, value, (low, high), own in seen
        if not low <= value <= high and value != own
    )


def _check_image(args: argparse.Namespace, asked: Asked) -> None:
    if args.image is None:
        return
    if args.visualize is None:
        raise BadInput("--image says whose timeline --visualize shows: give that too")
    if not 0 <= args.image < asked.images:
        raise BadInput(f"--image got {args.image} but expected 0..{asked.images - 1}")


def _check_places(asked: Asked) -> None:
    """Refuse files that could not be written, before time is spent on what goes into them."""
    record = asked.record if isinstance(asked.record, Path) else None
    places = (
        ("--output", asked.output, ".png"),
        ("--visualize", asked.figure, ".png"),
        ("--json", record, ".json"),
    )
    named: dict[Path, str] = {}
    for option, path, suffix in places:
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise BadInput(f"{option} got {str(path)!r} but expected a name ending in {suffix}")
        other = named.setdefault(path.absolute(), option)
        if other != option:
            raise BadInput(f"{other} and {option} name the same file {str(path)!r}")
        try:
            check_writable(path)
        except OSError as error:
            raise BadInput(f"{option} {str(path)!r} cannot be written: {error.strerror}") from None


def _utf8(option: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{option} is not text in UTF-8") from None
    return text


@contextlib.contextmanager
def as_typed(prompt: str = "--prompt") -> Iterator[None]:
    """A refusal that begins with a field's name begins with the option's name instead."""
    try:
        yield
    except BadInput as error:
        name, _, rest = str(error).partition(" ")
        option = prompt if name == "prompt" else OPTIONS.get(name, f"--{name}")
        raise BadInput(f"{option} {rest}{' or full' if name == 'top_k' else ''}") from None


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
