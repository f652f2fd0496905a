"""The flags of `generate`: how they are spelt and what they say of themselves.

Called by `commands.generate` and `commands.remote`; what they come to is `commands.asked`'s
business. Imports no torch.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from baguette.runtime import PRECISIONS

SAMPLES = 16
PRECISION = "bf16"
TEXT, STDOUT = "text", "-"  # --visualize and --json without a file


def add_options(parser: argparse.ArgumentParser) -> None:
    """Every flag of the Baguette card, and ours; what is left out comes from the model."""
    add_request(parser)
    _add_machine(parser)
    add_output(parser, "PRECISION")


def flag(parser: Any, name: str, **more: Any) -> None:
    """--an_option, also spelt --an-option."""
    parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), **more)


def add_request(parser: argparse.ArgumentParser) -> None:
    """What a picture is to be, wherever it is drawn."""
    group = parser.add_argument_group("what to draw")
    group.add_argument("words", nargs="?", metavar="PROMPT", help="the same as --prompt")
    flag(group, "prompt", help='what to draw (default: the model\'s example, or "a cute cat")')
    flag(group, "negative_prompt", metavar="TEXT", help="what to keep away from")
    flag(group, "prompts_file", type=Path, metavar="FILE", help="a prompt per line instead")
    flag(
        group, "num_samples", type=_whole, metavar="N",
        help=f"images per prompt, from seed, seed + 1, ... (default {SAMPLES}; 1 with a file)",
    )  # fmt: skip
    flag(
        group, "num_steps", type=_whole, metavar="N",
        help="denoising steps (default: the model's, or 30; 15-50 are usual)",
    )  # fmt: skip
    flag(
        group, "cfg_scale", type=_number, metavar="X",
        help="how closely to follow the prompt (default: the model's, or 7.5; 5-12 are usual)",
    )  # fmt: skip
    flag(
        group, "topk", type=_top_k, metavar="K",
        help="experts asked at each step, or full (default: the model's, or 2)",
    )  # fmt: skip
    flag(group, "seed", type=_whole, metavar="N", help="seed of the first image (default 999)")
    flag(
        group, "cache", type=_number, metavar="THRESHOLD",
        help="use velocities again while an image moved less than this since its experts were "
        "asked (default 0: never); docs/PERFORMANCE.md says what it is worth",
    )  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with what")
    flag(
        group, "model", type=Path, metavar="DIR",
        help="model directory (default: weights/paris, else weights/bf16 or weights/int8 by "
        "--precision, else weights/paris-mini)",
    )  # fmt: skip
    flag(
        group, "precision", metavar="P",
        help=f"how weights are kept: {', '.join(PRECISIONS)} (default {PRECISION})",
    )  # fmt: skip
    flag(
        group, "offload", type=_whole, metavar="N",
        help="experts kept in CPU memory (default 0)",
    )  # fmt: skip
    flag(group, "device", metavar="D", help="auto, cpu, cuda or cuda:N (default auto)")
    flag(group, "compile", action="store_true", help="compile the networks first: slow, then fast")
    flag(group, "threads", type=_whole, metavar="N", help="compute threads (default: every core)")
    flag(
        group, "deterministic", action="store_true",
        help="the bytes a cluster gives: one image and one expert at a time, in fp32, on one "
        "thread unless --precision or --threads say otherwise",
    )  # fmt: skip
    flag(
        group, "cluster", metavar="NODE",
        help="ask the running cluster of this node instead, e.g. 127.0.0.2, or over HTTP, e.g. "
        "http://127.0.0.2:8100",
    )  # fmt: skip


def add_output(parser: argparse.ArgumentParser, drawn: str) -> None:
    """What becomes of the pictures, wherever they were drawn; `drawn` is in their usual name."""
    group = parser.add_argument_group("what comes out")
    flag(
        group, "output", type=Path, metavar="FILE",
        help=f"the picture, of several a grid (default output_{drawn}.png)",
    )  # fmt: skip
    flag(group, "separate", action="store_true", help="a file per image, NAME_1.png and so on")
    flag(
        group, "visualize", nargs="?", const=TEXT, metavar="FILE.png",
        help="print which experts were asked; with a file, draw it there",
    )  # fmt: skip
    flag(
        group, "image", type=_whole, metavar="I",
        help="whose routing timeline --visualize shows, from 0 (default 0)",
    )  # fmt: skip
    flag(group, "embed_prompt", action="store_true", help="write the prompt into the PNG too")
    flag(
        group, "json", nargs="?", const=STDOUT, metavar="FILE.json",
        help="how it was drawn, for programs; - is standard output, and nothing else goes there",
    )  # fmt: skip


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
