"""Pictures, wherever they were drawn, and what becomes of them: files, a record, a few lines.

Called by `commands.generate` and `commands.on_cluster`. Files appear whole or not at all. Imports
no torch. What dies with it: nothing.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from baguette.commands.asked import Outputs
from baguette.commands.flags import STDOUT
from baguette.commands.model_dir import near
from baguette.files import write_whole
from baguette.routing_chart import timeline_chart, usage_chart
from baguette.sheet import sheet

MAX_WIDTH, USAGE_WIDTH = 100, 52
SHOWN = 4
Routing = Sequence[Sequence[Sequence[int]]]  # per image and step, largest weight first


@dataclass(frozen=True)
class Drawn:
    """PNGs with their own texts, the texts of their grid, how they were drawn, and for how long.

    `record` is what programs are told, without the files; its `images` are as many as the PNGs.
    """

    pngs: list[bytes]
    grid: dict[str, str]
    routing: Routing
    num_experts: int
    record: dict[str, Any]
    about: str


def stream(outputs: Outputs) -> TextIO:
    """Where lines for people go: not where the record goes."""
    return sys.stderr if outputs.record == STDOUT else sys.stdout


def finish(drawn: Drawn, outputs: Outputs) -> None:
    """Write everything or nothing, then say what is there."""
    files = _pictures(drawn, outputs)
    record = _record(drawn, list(files))
    more = {}
    if outputs.figure is not None:
        more[outputs.figure] = _figure(drawn, outputs)
    if isinstance(outputs.record, os.PathLike):
        more[outputs.record] = _json(record)
    write_whole({**files, **more})
    out = stream(outputs)
    if outputs.chart:
        say(out, _charts(drawn, outputs, _colour(out)))
    say(out, [_summary(record, [near(path) for path in (*files, *more)])])
    if outputs.record == STDOUT:
        sys.stdout.write(_json(record).decode())


def _pictures(drawn: Drawn, outputs: Outputs) -> dict[Path, bytes]:
    """File -> PNG: the picture, a grid of several, or with --separate each by itself."""
    name = outputs.picture
    if len(drawn.pngs) == 1:
        return {name: drawn.pngs[0]}
    if outputs.separate:
        names = [name.with_stem(f"{name.stem}_{i}") for i in range(1, len(drawn.pngs) + 1)]
        return dict(zip(names, drawn.pngs, strict=True))
    return {name: sheet(drawn.pngs, outputs.row, drawn.grid)}


def _record(drawn: Drawn, files: list[Path]) -> dict[str, Any]:
    images = drawn.record["images"]
    own = files if len(files) == len(images) else files * len(images)
    return {
        **drawn.record,
        "n": len(images),
        "out": str(files[0]),
        "images": [{**i, "file": str(file)} for i, file in zip(images, own, strict=True)],
        "pixels_sha256": images[0]["pixels_sha256"],
    }


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _figure(drawn: Drawn, outputs: Outputs) -> bytes:
    from baguette.routing_figure import routing_figure

    whose = "" if outputs.images == 1 else f"; timeline of image {outputs.image}"
    return routing_figure(drawn.routing, outputs.image, drawn.num_experts, drawn.about + whose)


def _charts(drawn: Drawn, outputs: Outputs, colour: bool) -> list[str]:
    """The card's two boxes."""
    width = min(shutil.get_terminal_size((80, 24)).columns, MAX_WIDTH)
    lines = usage_chart(drawn.routing, drawn.num_experts, min(width, USAGE_WIDTH), colour)
    lines += timeline_chart(drawn.routing[outputs.image], drawn.num_experts, width, colour)
    if outputs.images > 1:
        last = outputs.images - 1
        lines.append(f"(the timeline is that of image {outputs.image}; --image 0..{last} chooses)")
    return lines


def _summary(record: dict[str, Any], files: list[str]) -> str:
    """Files, seconds, images per second."""
    seconds, images = record["seconds"]["total"], counted(record["n"], "image")
    shown = ", ".join(files if len(files) <= SHOWN else [*files[:2], "...", files[-1]])
    return f"{shown}: {images} in {seconds:.1f} s, {record['n'] / seconds:.2f} images/s"


def counted(number: int, what: str) -> str:
    """ "1 image", "4 images"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _colour(out: TextIO) -> bool:
    """A terminal, unless its person wants none (no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR")


def say(out: TextIO, lines: Iterable[str]) -> None:
    """Lines for people."""
    if isinstance(out, io.TextIOWrapper):  # a terminal without Unicode gets question marks
        out.reconfigure(errors="replace")
    for line in lines:
        print(line, file=out, flush=True)


def warn(texts: Iterable[str]) -> None:
    """Each text once, on standard error."""
    say(sys.stderr, [f"warning: {text}" for text in dict.fromkeys(texts)])
