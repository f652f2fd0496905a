"""What using velocities again costs paris-mini's pictures and what it saves, by threshold.

The product's own single process draws, several images of a prompt together, as fast as it goes.
Called by scripts/judge_mini.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from baguette.pipeline import Pipeline
from baguette.shapes import caption
from baguette.shapes.draw import COMBINATIONS
from baguette.shapes.judge import Verdict

MOST_LOST = 0.01  # of all pictures: what a threshold may cost and still be called safe


@dataclass(frozen=True)
class Swept:
    """All pictures with one threshold; `threshold` 0 asks at every step."""

    threshold: float
    pictures: list[Tensor]
    right: list[bool]
    asked: int
    saved: int
    seconds: float

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)


def sweep(
    pipeline: Pipeline,
    thresholds: Sequence[float],
    seeds: int,
    first_seed: int,
    judged: Callable[[Tensor], Verdict],
) -> list[Swept]:
    """Every combination with `seeds` seeds: first without, then with each threshold."""
    pipeline(pipeline.request("warm", n=seeds, deterministic=False))
    return [
        _drawn(pipeline, threshold, seeds, first_seed, judged)
        for threshold in (0.0, *sorted(thresholds))
    ]


def _drawn(
    pipeline: Pipeline,
    threshold: float,
    seeds: int,
    first_seed: int,
    judged: Callable[[Tensor], Verdict],
) -> Swept:
    pictures: list[Tensor] = []
    right: list[bool] = []
    calls = saved = 0
    seconds = 0.0
    for i, combination in enumerate(tqdm(COMBINATIONS, desc=f"cache {threshold:g}")):
        prompt = caption.caption(i, i % len(caption.PHRASINGS))
        done = pipeline(
            pipeline.request(
                prompt, n=seeds, seed=first_seed + i * seeds, deterministic=False, cache=threshold
            )
        )
        pictures += done.pixels
        right += [judged(pixels).combination == combination for pixels in done.pixels]
        calls += sum(len(choice.experts) for image in done.routing for choice in image)
        saved += sum(done.saved())
        seconds += done.seconds["total"]
    return Swept(threshold, pictures, right, calls - saved, saved, seconds)


def safe(found: Sequence[Swept]) -> float:
    """The largest threshold up to which accuracy fell by at most MOST_LOST; 0 is always one."""
    off = found[0]
    largest = 0.0
    for one in found:
        # Whole pictures: a hundredth is no exact binary fraction.
        if sum(off.right) - sum(one.right) > MOST_LOST * len(off.right) + 1e-9:
            break
        largest = one.threshold
    return largest


def table(found: Sequence[Swept], psnr_db: Callable[..., list[float]]) -> str:
    """Markdown: a line a threshold."""
    off = found[0]
    lines = [
        f"{len(off.right)} pictures each.",
        "",
        "| cache | all right | calls left | seconds | speed-up | PSNR to off, median |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        left = one.asked / (one.asked + one.saved)
        apart = statistics.median(psnr_db(one.pictures, off.pictures))
        lines.append(
            f"| {one.threshold:g} | {one.accuracy:.1%} | {left:.1%} | {one.seconds:.1f} | "
            f"{off.seconds / one.seconds:.2f} | {'-' if one is off else f'{apart:.1f} dB'} |"
        )
    verdict = f"The largest that costs at most {MOST_LOST:.0%} of the pictures: {safe(found):g}."
    return "\n".join([*lines, "", verdict]) + "\n"
