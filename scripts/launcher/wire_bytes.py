"""What crosses between nodes in a step, against the least that could: latents out, velocities back.

Called by scripts/bench.py. Bytes are those of the payloads of expert calls, as the asking node
counts them (`ask_bytes_total`, `answer_bytes_total`), whether another node answers or its own. What
the distribution adds to a message is not in them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from baguette.families.paris.config import ModelConfig
from launcher.control import Control

# Bytes of a number: what is promised to the byte crosses in fp32, all else in half of it.
MODES = {"deterministic": (True, 4), "not deterministic": (False, 2)}
Record = dict[str, Any]


def measure(control: Control, draw: Callable[..., Record], model_dir: Path) -> Record:
    """Of one picture in each mode, whose contexts every node has already."""
    channels, height, width = ModelConfig.read(model_dir).latent_shape
    numbers = channels * height * width
    found = {}
    for mode, (deterministic, each) in MODES.items():
        draw(deterministic=deterministic)
        before = counted(control)
        result = draw(deterministic=deterministic)
        after = counted(control)
        grown = {name: after[name] - before[name] for name in after}
        found[mode] = of_step(grown, result, numbers * each)
    return found


def counted(control: Control) -> dict[str, int]:
    """What the node's generations have asked since it was started."""
    control.ask("own_figures")
    calls: dict[str, int] = control.answer("figures")["nodes"][0]["calls"]
    return calls


def of_step(grown: dict[str, int], result: Record, latent_bytes: int) -> Record:
    """The mean step of a picture, in bytes. An image's velocity is as large as its latent."""
    steps = result["steps"]
    rows = sum(len(asked["experts"]) for image in result["routing"] for asked in image)
    least = 2 * latent_bytes * rows
    return {
        "calls": round(grown["sent"] / steps, 2),
        "ask_bytes": round(grown["ask_bytes"] / steps, 1),
        "answer_bytes": round(grown["answer_bytes"] / steps, 1),
        "least_bytes": round(least / steps, 1),
        "of_the_least": round((grown["ask_bytes"] + grown["answer_bytes"]) / least, 3),
    }


def told(found: Record) -> list[str]:
    """The table."""
    heads = ("calls", "asks", "answers", "least", "of the least")
    lines = [f"{'bytes of a step':<20}" + "".join(f"{head:>13}" for head in heads)]
    for mode, row in found.items():
        cells = (row["ask_bytes"], row["answer_bytes"], row["least_bytes"])
        numbers = "".join(f"{value:>13.0f}" for value in cells)
        lines.append(f"{mode:<20}{row['calls']:>13g}{numbers}{row['of_the_least']:>13.3f}")
    return lines
