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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    last: Drift,
    moved: float,
    before: Collection[int],
    chosen: Collection[int],
    *,
    steps_left: int,
) -> Drift:
    """What an image is to do in its next step, after which `steps_left` more follow.

    `before` are the experts whose velocities it has, `chosen` those of the next step: others, or
    the same in other company, are asked. So is everybody where `moved` is not a number. The first
    step has nothing to use again and does not come here; after the last one nothing would put right
    what it left out.
    """
    change = last.change + moved
    if set(before) == set(chosen) and steps_left > 0 and change < threshold:
        return Drift(change, reused=True)
    return ASKED


def drifts(
    threshold: float,
    last: Sequence[Drift],
    moved: Sequence[float],
    before: Sequence[Collection[int]],
    chosen: Sequence[Collection[int]],
    *,
    steps_left: int,
) -> list[Drift]:
    """The same of every image by itself."""
    each = zip(last, moved, before, chosen, strict=True)
    return [drift(threshold, *one, steps_left=steps_left) for one in each]


def relative_changes(before: Tensor, after: Tensor) -> list[float]:
    """||after - before||_1 / ||before||_1 of each row of (N, ...); summed in float64."""
    changed = (after - before).abs().flatten(1).double().sum(1)
    changes: list[float] = (changed / before.abs().flatten(1).double().sum(1)).tolist()
    return changes


def calls_saved(experts: Sequence[Collection[int]], reused: Sequence[bool]) -> int:
    """How many answers an image used again, of its chosen experts and what it did, step by step."""
    return sum(len(chosen) for chosen, again in zip(experts, reused, strict=True) if again)
