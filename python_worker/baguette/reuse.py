"""Whether an image's next step may use its experts' last velocities again. Pure.

TeaCache (Liu et al., arXiv 2411.19108) applied to whole experts: a velocity hardly differs from
the one before while what goes into the network hardly does. Per step the relative L1 changes of
the latent and of the time's modulation are added up; while their sum since the experts were last
asked stays below the request's threshold, nobody is asked. Called by the single-process sampler
and by the pipeline worker's `advance`, which keeps nothing: the sum travels with the image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Drift:
    """How far an image has moved since its experts were asked, and whether a step asks nobody.

    All of an image's experts are asked at once or not at all, so one sum stands for each of them.
    """

    change: float = 0.0
    reused: bool = False


ASKED = Drift()


def drift(
    threshold: float,
    before: Drift,
    moved: float,
    experts: tuple[Collection[int], Collection[int]],
    steps_left: int,
) -> Drift:
    """What an image is to do in its next step, after which `steps_left` more follow.

    `experts` are those of the step before and those now chosen: other experts, or other company,
    are asked. So is whatever is not a number. The first step has nothing to use again and does not
    come here; in the last one nothing would put right what was left out.
    """
    change = before.change + moved
    same = set(experts[0]) == set(experts[1])
    if same and steps_left > 0 and change < threshold:
        return Drift(change, reused=True)
    return ASKED


def relative_changes(before: Tensor, after: Tensor) -> list[float]:
    """||after - before||_1 / ||before||_1 of each row of (N, ...); summed in float64."""
    changed = (after - before).abs().flatten(1).double().sum(1)
    changes: list[float] = (changed / before.abs().flatten(1).double().sum(1)).tolist()
    return changes


def calls_saved(experts: Sequence[Collection[int]], reused: Sequence[bool]) -> int:
    """How many answers an image used again, of its chosen experts and what it did, step by step."""
    return sum(len(chosen) for chosen, again in zip(experts, reused, strict=True) if again)
