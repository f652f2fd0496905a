"""A finished generation: its files, its record in JSON, and what is printed of it."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from baguette.files import write_whole
from baguette.routing_chart import timeline_chart, usage_chart
from baguette.sheet import sheet

Result = dict[str, Any]
PARTS = ("encode", "route", "experts", "advance", "decode", "total")


def write_pictures(result: Result, out: Path) -> list[Path]:
    """One image: `out`. Several: a grid in `out`, and each beside it as NAME_1.png and so on."""
    pictures = [base64.b64decode(image["png"]) for image in result["images"]]
    if len(pictures) == 1:
        write_whole({out: pictures[0]})
        return [out]
    paths = [out.with_stem(f"{out.stem}_{i}") for i in range(1, len(pictures) + 1)]
    write_whole({out: sheet(pictures), **dict(zip(paths, pictures, strict=True))})
    return [out, *paths]


def record(result: Result, prompt: str, paths: list[Path], extra: dict[str, Any]) -> dict[str, Any]:
    """What other programs can hold this picture to: out/demo.json."""
    files = [str(path) for path in paths[-len(result["images"]) :]]
    images = [
        {**{k: v for k, v in image.items() if k != "png"}, "file": file}
        for image, file in zip(result["images"], files, strict=True)
    ]
    return {
        **{k: v for k, v in result.items() if k != "images"},
        "prompt": prompt,
        "n": len(images),
        "out": str(paths[0]),
        "images": images,
        "pixels_sha256": images[0]["pixels_sha256"],
        **extra,
    }


def write_record(values: dict[str, Any], path: Path) -> None:
    """JSON, whole or not at all."""
    write_whole({path: (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()})


def lines(result: Result, num_experts: int, width: int, colour: bool) -> list[str]:
    """Routing, seconds per part, who did what, and the identity of each picture."""
    images = [[step["experts"] for step in image] for image in result["routing"]]
    text = usage_chart(images, num_experts, min(width, 60), colour)
    text += timeline_chart(images[0], num_experts, width, colour)
    if len(images) > 1:
        text.append(f"(the timeline is the first image's; all {len(images)} are in the JSON)")
    text += ["", "Seconds per part: " + _seconds(result["seconds"]), ""]
    text += _nodes(result["calls"])
    text.append("")
    text += [f"pixels sha256 {image['pixels_sha256']}" for image in result["images"]]
    return text


def _seconds(seconds: dict[str, float]) -> str:
    known = [part for part in PARTS if part in seconds]
    return "  ".join(f"{part} {seconds[part]:.2f}" for part in known)


def _nodes(calls: list[dict[str, Any]]) -> list[str]:
    """A row per node: which experts it answered for, how often, and how fast."""
    by_node: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        by_node[call["node"]].append(call)
    rows = [f"{'Node':<24}{'Experts':<16}{'Calls':>6}{'Median ms':>11}"]
    for node in sorted(by_node, key=_by_address):
        mine = by_node[node]
        experts = " ".join(f"E{e}" for e in sorted({call["expert"] for call in mine}))
        rows.append(f"{node:<24}{experts:<16}{len(mine):>6}{median(c['ms'] for c in mine):>11.1f}")
    return rows


def _by_address(node: str) -> tuple[int, ...]:
    return tuple(int(part) for part in node.rpartition("@")[2].split(".") if part.isdigit())
