"""The pipeline worker's share of pictures, several at once: noise, Euler steps, routing, decoding.

Called by `pipeline_entry`. What is to have the same bytes in any company (`canonical`) is routed
and decoded an image at a time; all other images as one batch, whatever step each of them is at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baguette.errors import BadInput
from baguette.families.paris.requester import Requester
from baguette.image import tensor_sha256, to_png
from baguette.mixture import Choice
from baguette.reuse import Drift, drifts
from baguette.worker import company
from baguette.worker.payload import pack, take, unpack
from baguette.worker.spent import spent
from baguette.worker.state import micros_since
from baguette.worker.tensor import pack_tensor, unpack_tensor

# Images the decoder has at once: its memory is by the image, and more gain nothing.
DECODED = 4
Move = Callable[[Requester, dict[str, Any]], "Moved"]


@dataclass(frozen=True)
class Moved:
    """The latents of one call, to be routed at time `t`; None after the last step."""

    latents: list[Tensor]
    t: float | None
    top_k: int | None
    canonical: bool
    told: dict[str, Any]
    # Of the experts that each image chooses next: which images use their velocities again.
    reuse: Callable[[Sequence[Sequence[int]]], list[Drift]] | None = None

    @property
    def group(self) -> bool:
        return self.t is None


@dataclass(frozen=True)
class Last:
    """The last latents of one call, and what the PNGs of its pictures say."""

    latents: list[Tensor]
    texts: list[dict[str, str]]
    canonical: bool
    group: None = None


@torch.inference_mode()
def routed(requester: Requester, move: Move, payloads: Sequence[bytes]) -> list[company.Answer]:
    """What `move` makes of each call, with the experts that its images ask next."""
    begun = time.perf_counter()
    return company.answers(
        payloads,
        read=lambda payload: move(requester, unpack(payload)),
        compute=partial(_choices, requester),
        write=partial(_write_moved, requester, begun),
    )


def started(requester: Requester, values: dict[str, Any]) -> Moved:
    """Noise, to be routed for the first time."""
    latents = [requester.start(seed) for seed in take(values, "seeds", list)]
    t = times(requester, values)[0]
    return Moved(latents, t, values.get("top_k"), take(values, "canonical", bool), {})


def advanced(requester: Requester, values: dict[str, Any]) -> Moved:
    """One Euler step of each image."""
    begun = time.perf_counter()
    grid, step = at_step(requester, values)
    images = [answered(image) for image in take(values, "images", list)]
    spent.mark("unpack")
    latents = [requester.advance(*image, grid[step], grid[step + 1]) for image in images]
    spent.mark("compute")
    t = grid[step + 1] if step < len(grid) - 2 else None
    told = {"advance_micros": micros_since(begun)}
    canonical = take(values, "canonical", bool)
    reuse = _reuse(requester, values, latents) if t is not None else None
    return Moved(latents, t, values.get("top_k"), canonical, told, reuse)


def _reuse(
    requester: Requester, values: dict[str, Any], latents: list[Tensor]
) -> Callable[[Sequence[Sequence[int]]], list[Drift]] | None:
    """What is decided once these images are routed; nothing where they are not to reuse."""
    cache, images = take(values, "cache", (int, float)), take(values, "images", list)
    if cache <= 0:
        return None
    grid, step = at_step(requester, values)
    before = torch.stack([unpack_tensor(image["latent"], 3) for image in images])
    return partial(
        drifts,
        cache,
        [Drift(take(image, "change", (int, float))) for image in images],
        requester.moved(before, torch.stack(latents), grid[step], grid[step + 1]),
        [image["experts"] for image in images],
        steps_left=len(grid) - 3 - step,
    )


def times(requester: Requester, values: dict[str, Any]) -> list[float]:
    """The times of a picture of so many steps, from 1 to 0."""
    steps = take(values, "steps", int)
    if steps < 1:
        raise BadInput(f"got steps={steps} but expected at least 1")
    return requester.times(steps)


def at_step(requester: Requester, values: dict[str, Any]) -> tuple[list[float], int]:
    """The times, and which of them a step begins at."""
    grid, step = times(requester, values), take(values, "step", int)
    if not 0 <= step < len(grid) - 1:
        raise BadInput(f"got step {step} but expected 0..{len(grid) - 2}")
    return grid, step


def answered(image: dict[str, Any]) -> tuple[Tensor, dict[int, Tensor], Choice]:
    """An image's latent, its experts' velocities and their weights."""
    choice = Choice(tuple(image["experts"]), tuple(image["weights"]), margin=0.0)
    velocities = {expert: unpack_tensor(blob, 3) for expert, blob in image["velocities"]}
    if velocities.keys() != set(choice.experts):
        raise BadInput(
            f"got velocities of {sorted(velocities)} but expected {sorted(choice.experts)}"
        )
    return unpack_tensor(image["latent"], 3), velocities, choice


def _choices(requester: Requester, calls: Sequence[Moved]) -> list[Sequence[Choice]]:
    rows = [(latent, m.t, m.top_k) for m in calls for latent in m.latents if m.t is not None]
    if not rows:
        return [[] for _ in calls]
    most = 1 if calls[0].canonical else len(rows)
    chosen = []
    for begin in range(0, len(rows), most):
        latents, at, top_k = zip(*rows[begin : begin + most], strict=True)
        chosen += requester.route_each(torch.stack(latents), at, top_k)
    return company.split(chosen, [len(moved.latents) for moved in calls])


def _write_moved(
    requester: Requester, begun: float, moved: Moved, choices: Sequence[Choice]
) -> bytes:
    if moved.t is None:
        return pack({"images": [{"latent": pack_tensor(x)} for x in moved.latents], **moved.told})
    images = [
        {
            "latent": pack_tensor(latent),
            **({} if moved.canonical else {"ask": pack_tensor(latent.half())}),
            "experts": list(choice.experts),
            "weights": list(choice.weights),
            "margin": choice.margin,
        }
        for latent, choice in zip(moved.latents, choices, strict=True)
    ]
    if moved.reuse is not None:
        decided = moved.reuse([choice.experts for choice in choices])
        for image, drift in zip(images, decided, strict=True):
            image |= {"change": drift.change} if drift.reused else {}
    when = {"t": moved.t, "network_t": requester.network_time(moved.t)}
    micros = micros_since(begun) - moved.told.get("advance_micros", 0)
    return pack({"images": images, **when, "route_micros": max(0, micros), **moved.told})


def decoded(requester: Requester, payloads: Sequence[bytes]) -> list[company.Answer]:
    """The pictures of each call."""
    begun = time.perf_counter()
    return company.answers(
        payloads,
        read=_read_last,
        compute=partial(_pixels, requester),
        write=partial(_write_pictures, begun),
    )


def _read_last(payload: bytes) -> Last:
    values = unpack(payload)
    latents = [unpack_tensor(blob, 3) for blob in take(values, "latents", list)]
    texts = take(values, "text", list)
    if len(texts) != len(latents):
        raise BadInput(f"got {len(texts)} texts but expected {len(latents)}, one a latent")
    return Last(latents, texts, take(values, "canonical", bool))


def _pixels(requester: Requester, calls: Sequence[Last]) -> list[Sequence[Tensor]]:
    most = 1 if calls[0].canonical else DECODED
    latents = torch.stack([latent for last in calls for latent in last.latents])
    pixels = [image for part in latents.split(most) for image in requester.decode_together(part)]
    return company.split(pixels, [len(last.latents) for last in calls])


def _write_pictures(begun: float, last: Last, pixels: Sequence[Tensor]) -> bytes:
    images = [
        {
            "png": to_png(image, text),
            "pixels_sha256": tensor_sha256(image),
            "latent_sha256": tensor_sha256(latent),
        }
        for image, latent, text in zip(pixels, last.latents, last.texts, strict=True)
    ]
    return pack({"images": images, "micros": micros_since(begun)})
