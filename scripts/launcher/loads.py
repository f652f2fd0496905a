"""Many pictures at once, asked of several nodes of a cluster, and what is read from how they went.

Called by the sections of scripts/bench_throughput.py. Each requesting node has a control node that
has it draw (apps/baguette/src/baguette_load.erl) and tells nothing before the last picture has
ended, so looking costs nothing meanwhile. What dies with it: the pictures in the drawing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.control import Control
from launcher.processes import Refused
from launcher.simulated import Fleet
from launcher.waiting import CONNECT_SECONDS

PROMPT = "a simulated picture"
# No program here waits longer for one load.
MOST_SECONDS = 3600.0
Request = dict[str, Any]
Picture = dict[str, Any]
Step = tuple[float, float, float, float]


@dataclass(frozen=True)
class Order:
    """So many pictures, so many of them at a time, by all requesting nodes together.

    With `seconds` none is asked for after those. Each node has seeds of its own, which repeat after
    `seeds` pictures, so that the same picture is drawn again and can be compared. Each seed has one
    of `prompts` prompts (`numbered`).
    """

    request: Request
    concurrent: int
    images: int
    seconds: float = MOST_SECONDS
    seeds: int = 16
    prompts: int = 1

    def of(self, index: int, nodes: int) -> dict[str, Any] | None:
        """One requesting node's part; None where nothing is left for it."""
        asking = min(nodes, self.concurrent, self.images)
        if index >= asking:
            return None
        concurrent, images = (_part(n, index, asking) for n in (self.concurrent, self.images))
        return {
            "request": {"seed": 1 + index * self.seeds, **self.request},
            "concurrent": concurrent,
            "images": images,
            "ms": int(1000 * self.seconds),
            "seeds": self.seeds,
            "prompts": self.prompts,
        }


def numbered(prompt: str, seed: int, prompts: int) -> str:
    """The prompt that this seed has, as apps/baguette/src/baguette_load.erl gives it."""
    number = seed % prompts
    return f"{prompt} {number}" if number else prompt


def _part(count: int, index: int, nodes: int) -> int:
    return count // nodes + (index < count % nodes)


class Load:
    """Pictures in the drawing."""

    def __init__(self, controls: Sequence[Control], order: Order) -> None:
        parts = [order.of(index, len(controls)) for index in range(len(controls))]
        self._controls = [c for c, part in zip(controls, parts, strict=True) if part is not None]
        for control, part in zip(controls, parts, strict=True):
            if part is not None:
                control.ask("load", order=part)

    def ended(self) -> list[Picture]:
        """Wait for all of them; some may have failed."""
        return [p for control in self._controls for p in control.answer("loaded")["images"]]


def draw(controls: Sequence[Control], order: Order) -> list[Picture]:
    """Draw them all, each as it should be."""
    pictures = Load(controls, order).ended()
    check(pictures)
    return pictures


@contextlib.contextmanager
def requesters(fleet: Fleet, count: int) -> Iterator[list[Control]]:
    """Control nodes that have the first so many nodes draw."""
    with contextlib.ExitStack() as stack:
        controls = [
            stack.enter_context(Control(fleet.target(index), f"load-{index}"))
            for index in range(count)
        ]
        for control in controls:
            control.connect(CONNECT_SECONDS)
        yield controls


def check(pictures: Sequence[Picture]) -> None:
    """Refused unless every picture ended, and those of one seed are the same."""
    for picture in pictures:
        if not picture["ok"]:
            raise Refused(f"a picture was lost: {picture['why']['sentence']}")
    if different(pictures):
        raise Refused("pictures of the same seed differ: the cluster has mixed something up")


def different(pictures: Sequence[Picture]) -> int:
    """How many seeds have more than one picture."""
    found: dict[int, set[str]] = {}
    for picture in pictures:
        if picture["ok"]:
            found.setdefault(picture["seed"], set()).add(picture["pixels_sha256"])
    return sum(len(hashes) > 1 for hashes in found.values())


def rate(pictures: Sequence[Picture]) -> float:
    """Pictures a second, from the first ask to the last end."""
    began = min(picture["asked_us"] for picture in pictures)
    ended = max(picture["ended_us"] for picture in pictures)
    return 1e6 * len(pictures) / (ended - began)


def steps_between(pictures: Sequence[Picture], since: float, until: float) -> int:
    """Steps whose last answer came between two moments of time.time()."""
    return sum(
        since <= (picture["began_us"] + done) / 1e6 < until
        for picture in pictures
        if picture["ok"]
        for _, done, _, _ in picture["steps"]
    )


def seconds(picture: Picture) -> float:
    """From the ask to the end."""
    taken: float = (picture["ended_us"] - picture["asked_us"]) / 1e6
    return taken


def step_ms(picture: Picture) -> list[tuple[float, float]]:
    """Of each step but the last: from its first ask to the next step's, and what was computed."""
    steps: list[Step] = picture["steps"]
    return [
        ((after[0] - before[0]) / 1000, max(before[2], before[3]) / 1000)
        for before, after in itertools.pairwise(steps)
    ]


def extra_share(pictures: Sequence[Picture], top_k: int) -> float:
    """Of all calls, those beyond the ones that were needed."""
    asked = sum(picture["calls"] for picture in pictures)
    needed = sum(top_k * len(picture["steps"]) for picture in pictures)
    return (asked - needed) / asked
