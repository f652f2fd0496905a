"""The launcher's options: read from the environment, checked before anything is started.

Ranges that belong to a request are the package's own (baguette.request); ranges that belong to the
model come from its config.json. The engine checks once more at its door.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baguette.errors import BadInput
from baguette.files import check_writable
from baguette.request import MAX_GUIDANCE, MAX_IMAGES, MAX_SEED, MAX_STEPS, GenerationRequest

ROOT = Path(__file__).resolve().parents[2]
MAX_NODES = 64

# request field -> option, and what to say is allowed where the value is no number at all
FIELDS = {
    "prompt": "PROMPT",
    "n": "N",
    "steps": "STEPS",
    "guidance_scale": "GUIDANCE",
    "top_k": "TOPK",
    "seed": "SEED",
}


class BadOption(Exception):
    """A value that cannot be used; the message names the option, the value and the range."""


@dataclass(frozen=True)
class Options:
    """What the person asked for. None: not asked, so the model's (or the launcher's) default."""

    request: dict[str, Any]
    nodes: int | None
    port: int | None
    address: str | None
    id: str | None
    name: str | None
    model_dir: Path
    out: Path

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Options:
        """Read every option that is set; BadOption for one that is not even of its kind."""
        request: dict[str, Any] = {}
        if "PROMPT" in env:
            request["prompt"] = _text("PROMPT", env["PROMPT"])
        for field, high in (("n", MAX_IMAGES), ("steps", MAX_STEPS), ("seed", MAX_SEED)):
            if FIELDS[field] in env:
                low = 0 if field == "seed" else 1
                request[field] = read_whole(FIELDS[field], env[FIELDS[field]], low, high)
        if "GUIDANCE" in env:
            request["guidance_scale"] = _number("GUIDANCE", env["GUIDANCE"], 1.0, MAX_GUIDANCE)
        if "TOPK" in env:
            full = env["TOPK"].strip() == "full"
            request["top_k"] = "full" if full else _integer("TOPK", env["TOPK"])
        return cls(
            request=request,
            nodes=read_whole("NODES", env["NODES"], 1, MAX_NODES) if "NODES" in env else None,
            port=read_whole("PORT", env["PORT"], 2024, 65535) if "PORT" in env else None,
            address=env.get("ADDRESS") or None,
            id=_text("ID", env["ID"]).strip().lower() or None if "ID" in env else None,
            name=env.get("NAME") or None,
            model_dir=(ROOT / read_path("MODEL", env.get("MODEL", "weights/paris-mini"))).resolve(),
            out=(Path.cwd() / read_path("OUT", env.get("OUT", "out/demo.png"))).resolve(),
        )


@dataclass(frozen=True)
class Model:
    """What the launcher needs of the model's config.json."""

    name: str
    num_experts: int
    defaults: dict[str, Any]
    example_prompt: str

    @classmethod
    def read(cls, model_dir: Path) -> Model:
        """Read `model_dir/config.json`; BadOption says what to do when it cannot be."""
        path = model_dir / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            own = values.get("baguette", {})
            return cls(
                name=str(own.get("name", model_dir.name)),
                num_experts=int(values["num_experts"]),
                defaults=dict(own.get("defaults", {})),
                example_prompt=str(own.get("example_prompt", "a cute cat")),
            )
        except OSError as error:
            why = str(error.strerror)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
        raise BadOption(
            f"MODEL {model_dir} is no model directory: its config.json cannot be "
            f"read ({why}). `make train-mini` makes weights/paris-mini."
        )

    def check(self, options: Options) -> None:
        """Refuse a request this model cannot draw, with the option's name and its range."""
        asked = {**self.defaults, **options.request}
        request = GenerationRequest(
            prompt=asked.get("prompt", self.example_prompt),
            n=asked.get("n", 1),
            steps=asked.get("steps", 1),
            guidance_scale=asked.get("guidance_scale", 1.0),
            top_k=None if asked.get("top_k", "full") == "full" else asked["top_k"],
            seed=asked.get("seed", 0),
        )
        try:
            request.check(self.num_experts)
        except BadInput as error:
            field, _, rest = str(error).partition(" ")
            more = " or full" if field == "top_k" else ""
            raise BadOption(f"{FIELDS.get(field, field)} {rest}{more}") from None


def check_out(out: Path) -> None:
    """Refuse a picture path that could not be written, before a minute is spent on it."""
    if out.suffix.lower() != ".png":
        raise BadOption(f"OUT got {str(out)!r} but expected a file name that ends in .png")
    try:
        check_writable(out)
    except OSError as error:
        raise BadOption(f"OUT {str(out)!r} cannot be written: {error.strerror}") from None


def _text(option: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadOption(f"{option} is not text in UTF-8") from None
    return value


def read_path(option: str, value: str) -> str:
    """Text that can name a file; BadOption when it is empty."""
    if not value.strip():
        raise BadOption(f"{option} is empty but expected a path; leave it out for the default")
    return _text(option, value)


def _integer(option: str, value: str, allowed: str = "a whole number or full") -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", value.strip()):
        raise BadOption(f"{option} got {value[:40]!r} but expected {allowed}")
    return int(value)


def read_whole(option: str, value: str, low: int, high: int) -> int:
    """A whole number in this range; BadOption names it."""
    number = _integer(option, value, f"a whole number in {low}..{high}")
    if not low <= number <= high:
        raise BadOption(f"{option} got {number} but expected {low}..{high}")
    return number


def _number(option: str, value: str, low: float, high: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise BadOption(f"{option} got {value[:40]!r} but expected a number in {low}..{high}")
    return number
