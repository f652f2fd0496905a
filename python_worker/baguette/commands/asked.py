"""What a person asked `generate` for: every flag checked and given its default.

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

from baguette.commands.flags import PRECISION, SAMPLES, STDOUT, TEXT
from baguette.commands.model_dir import given_model
from baguette.errors import BadInput
from baguette.files import check_option
from baguette.request import GenerationRequest
from baguette.runtime import Runtime, cores

if TYPE_CHECKING:
    from baguette.families.paris.config import ModelConfig

CANONICAL_PRECISION = "fp32"
USUAL_STEPS, USUAL_CFG = (15, 50), (5.0, 12.0)
MAX_PROMPTS_BYTES = 1 << 20
MAX_IMAGES = 1024  # of one command: what they and their grid take stays below a gigabyte
# A request's fields -> the options that set them; the runtime's fields are spelt as they are.
OPTIONS = {
    "n": "--num_samples",
    "steps": "--num_steps",
    "guidance_scale": "--cfg_scale",
    "top_k": "--topk",
}
Prompts = list[tuple[str, str]]  # what a refusal is to call it, and the prompt


@dataclass(frozen=True)
class Outputs:
    """What is to come out, and where. `images` are how many in all, `row` how many stand in one.

    `chart` says whether the routing is to be printed, `figure` where it is to be drawn, `image`
    whose timeline. `record` is where the JSON goes, STDOUT for standard output.
    """

    picture: Path
    separate: bool
    chart: bool
    figure: Path | None
    image: int
    record: Path | str | None
    images: int
    row: int | None


@dataclass(frozen=True)
class Asked:
    """Everything about a drawing in this process."""

    model_dir: Path
    config: ModelConfig
    runtime: Runtime
    requests: tuple[GenerationRequest, ...]
    outputs: Outputs
    embed_prompt: bool
    warnings: tuple[str, ...]


def read(args: argparse.Namespace) -> Asked:
    """Everything checked, nothing computed; BadInput names the option as it is typed."""
    from baguette.families.paris.config import ModelConfig

    precision = args.precision or (CANONICAL_PRECISION if args.deterministic else PRECISION)
    model_dir = given_model(args.model, precision)
    config = ModelConfig.read(model_dir)
    requests = _requests(args, config)
    return Asked(
        model_dir=model_dir,
        config=config,
        runtime=_runtime(args, precision, config.num_experts),
        requests=requests,
        outputs=outputs(args, precision, len(requests), requests[0].n),
        embed_prompt=args.embed_prompt,
        warnings=_unusual(requests[0], config),
    )


def outputs(args: argparse.Namespace, name: str, prompts: int, n: int) -> Outputs:
    """Where `n` pictures of each prompt go; BadInput for what could not be written there."""
    if prompts * n > MAX_IMAGES:
        raise BadInput(
            f"--prompts_file holds {prompts} prompts, with --num_samples {n} "
            f"more than {MAX_IMAGES} images: draw it in parts"
        )
    found = Outputs(
        picture=args.output or Path(f"output_{name}.png"),
        separate=args.separate,
        chart=args.visualize == TEXT,
        figure=None if args.visualize in (None, TEXT) else Path(args.visualize),
        image=args.image or 0,
        record=args.json if args.json in (None, STDOUT) else Path(args.json),
        images=prompts * n,
        row=n if prompts > 1 and n > 1 else None,  # a prompt, a row
    )
    _check_image(args, found)
    _check_places(found)
    return found


def given_request(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request that were named, and how many images; not the prompt."""
    fields = {
        "n": args.num_samples,
        "steps": args.num_steps,
        "guidance_scale": args.cfg_scale,
        "seed": args.seed,
        "cache": args.cache,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    given.setdefault("n", SAMPLES if args.prompts_file is None else 1)
    return given


def _requests(args: argparse.Namespace, config: ModelConfig) -> tuple[GenerationRequest, ...]:
    given = given_request(args)
    if args.topk is not None:
        given["top_k"] = None if args.topk == "full" else args.topk
    given["negative_prompt"] = _utf8("--negative_prompt", args.negative_prompt or "")
    given["deterministic"] = args.deterministic
    requests = []
    for where, prompt in prompts(args) or [("the model's example prompt", config.example_prompt)]:
        request = config.request(prompt, **given)
        with as_typed(where):
            request.check(config.num_experts)
        requests.append(request)
    return tuple(requests)


def prompts(args: argparse.Namespace) -> Prompts:
    """What was given to draw; nothing where nothing was."""
    given = {"PROMPT": args.words, "--prompt": args.prompt, "--prompts_file": args.prompts_file}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise BadInput(f"{' and '.join(named)} exclude each other: give one of them")
    if args.prompts_file is not None:
        return _lines(args.prompts_file)
    return [("--prompt", _utf8("--prompt", given[name])) for name in named]


def _lines(path: Path) -> Prompts:
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
        device=args.device if args.device is not None else "auto",
        threads=args.threads if args.threads is not None else 1 if args.deterministic else cores(),
        offload=args.offload or 0,
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


def _check_image(args: argparse.Namespace, found: Outputs) -> None:
    if args.image is None:
        return
    if args.visualize is None:
        raise BadInput("--image says whose timeline --visualize shows: give that too")
    if not 0 <= args.image < found.images:
        raise BadInput(f"--image got {args.image} but expected 0..{found.images - 1}")


def _check_places(found: Outputs) -> None:
    """Refuse files that could not be written, before time is spent on what goes into them."""
    record = found.record if isinstance(found.record, Path) else None
    places = (
        ("--output", found.picture, ".png"),
        ("--visualize", found.figure, ".png"),
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
        check_option(option, path)


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
