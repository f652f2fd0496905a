"""What using velocities again costs paris-mini's pictures and what it saves, by threshold.

The product's own single process draws, several images of a prompt together, as fast as it goes.
Called by scripts/judge_mini.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from tqdm import tqdm

from baguette.generation import Generation
from baguette.pipeline import Pipeline
from baguette.shapes import caption
from baguette.shapes.draw import COMBINATIONS
from baguette.shapes.judge import Verdict

MOST_LOST = 0.01  # of all pictures: what a threshold may cost and still be called safe


@dataclass
class Swept:
    """All pictures with one threshold; `threshold` 0 asks at every step."""

    threshold: float
    pictures: list[Tensor] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    asked: int = 0
    saved: int = 0
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)

    def add(self, done: Generation, right: Sequence[bool]) -> None:
        """Count pictures in."""
        calls = sum(len(choice.experts) for image in done.routing for choice in image)
        saved = sum(done.saved())
        self.pictures += done.pixels
        self.right += right
        self.asked += calls - saved
        self.saved += saved
        self.seconds += done.seconds["total"]


def sweep(
    pipeline: Pipeline,
    thresholds: Sequence[float],
    seeds: int,
    first_seed: int,
    judged: Callable[[Tensor], Verdict],
) -> list[Swept]:
    """Every combination with `seeds` seeds, without and with each threshold.

    In turn, combination by combination: what else the machine does slows all of them alike. What
    is kept of a prompt is made before: the first of them would pay for the others.
    """
    found = [Swept(threshold) for threshold in (0.0, *sorted(thresholds))]
    for i, combination in enumerate(tqdm(COMBINATIONS)):
        request = pipeline.request(
            caption.caption(i, i % len(caption.PHRASINGS)),
            n=seeds, seed=first_seed + i * seeds, deterministic=False,
        )  # fmt: skip
        pipeline(replace(request, steps=1, top_k=None))
        for one in found:
            done = pipeline(replace(request, cache=one.threshold))
            one.add(done, [judged(pixels).combination == combination for pixels in done.pixels])
    return found


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
