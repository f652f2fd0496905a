"""Entry points of the pipeline worker: encode, start, advance, preview, decode; bytes to bytes.

Holds one `Requester` (text encoder, router, sampler, VAE). It keeps nothing of a generation
between calls, so a restarted worker goes on from any step. Heavy imports happen in `load`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.errors import BadInput
from baguette.reuse import Drift, drifts
from baguette.worker.payload import pack, take, unpack
from baguette.worker.state import micros_since, process_figures

if TYPE_CHECKING:
    from torch import Tensor

    from baguette.families.paris.expert import Context
    from baguette.families.paris.requester import Requester
    from baguette.mixture import Choice

_loaded: list[Requester] = []


def load(payload: bytes) -> bytes:
    """{model_dir, threads} -> {}: load all that a requester needs, and compute once."""
    from baguette.machine import gpus, use

    use(gpus())  # before torch is imported: the GPU that the expert worker uses too
    from baguette.device import pin_threads
    from baguette.families.paris.requester import Requester

    values = unpack(payload)
    pin_threads(take(values, "threads", int))
    requester = Requester(Path(take(values, "model_dir", str)))
    # The first call of a kernel pays for its set-up; pay here, not in somebody's first picture.
    requester.encode(requester.config.example_prompt)
    latent = requester.start(0)
    requester.route(latent, 1.0, 1)
    requester.decode(latent)
    _loaded[:] = [requester]
    return pack({})


def encode(payload: bytes) -> bytes:
    """{prompt, negative_prompt} -> {context, null, warnings, keys, threads, micros}.

    Contexts are {hash, tensor}; keys and threads are what the picture's identity depends on here.
    """
    import torch

    begun = time.perf_counter()
    values = unpack(payload)
    prompt = take(values, "prompt", str)
    return pack(
        {
            "context": _pack_context(_requester().encode(prompt)),
            "null": _pack_context(_requester().encode_null(take(values, "negative_prompt", str))),
            "warnings": _requester().warnings(prompt),
            "keys": _requester().keys,
            "threads": torch.get_num_threads(),
            "micros": micros_since(begun),
        }
    )


def _pack_context(context: Context) -> dict[str, Any]:
    from baguette.worker.tensor import pack_tensor

    return {"hash": context.hash, "tensor": pack_tensor(context.tensor)}


def start(payload: bytes) -> bytes:
    """{seeds, steps, top_k} -> {images, t, network_t, route_micros}: noise, and the first routing.

    An image is {latent, experts, weights, margin}; top_k nil asks every expert.
    """
    values = unpack(payload)
    times = _times(values)
    latents = [_requester().start(seed) for seed in take(values, "seeds", list)]
    return pack(_routed(latents, times[0], values.get("top_k")))


def advance(payload: bytes) -> bytes:
    """{step, steps, top_k, cache, images} -> the next latents, routed unless it was the last step.

    `step` counts from 0. An image in is {latent, experts, weights, change, velocities}, the
    velocities as [[expert, blob]] in any order. Adds advance_micros to what `start` returns; an
    image that is to use its velocities again comes with its new `change`.
    """
    begun = time.perf_counter()
    values = unpack(payload)
    times, step = _at_step(values)
    images = take(values, "images", list)
    latents = [_advance_one(image, times[step], times[step + 1]) for image in images]
    micros = micros_since(begun)
    if step == len(times) - 2:
        return pack({"images": [{"latent": _blob(x)} for x in latents], "advance_micros": micros})
    routed = _routed(latents, times[step + 1], values.get("top_k"))
    cache = take(values, "cache", (int, float))
    if cache > 0:
        _reuse(cache, (images, latents), times[step:], routed["images"])
    return pack(routed | {"advance_micros": micros})


def _reuse(
    cache: float,
    moved: tuple[list[dict[str, Any]], list[Tensor]],
    times: list[float],
    routed: list[dict[str, Any]],
) -> None:
    """Give `change` to every image that asks nobody at the second of these times, until the end."""
    import torch

    from baguette.worker.tensor import unpack_tensor

    images, latents = moved
    before = torch.stack([unpack_tensor(image["latent"], 3) for image in images])
    decided = drifts(
        cache,
        [Drift(take(image, "change", (int, float))) for image in images],
        _requester().moved(before, torch.stack(latents), times[0], times[1]),
        [pair["experts"] for pair in images],
        [pair["experts"] for pair in routed],
        steps_left=len(times) - 3,
    )
    for image, drift in zip(routed, decided, strict=True):
        if drift.reused:
            image["change"] = drift.change


def preview(payload: bytes) -> bytes:
    """What `advance` gets -> {pngs}: roughly what its images will be, made while experts compute.

    The first calls say nil: each makes a short piece of what all further ones need.
    """
    from baguette.image import to_png

    values = unpack(payload)
    times, step = _at_step(values)
    if not _requester().look.prepare():
        return pack({"pngs": None})
    answered = [_answered(image) for image in take(values, "images", list)]
    pixels = [_requester().preview(*one, times[step]) for one in answered]
    return pack({"pngs": [to_png(one) for one in pixels]})


def _at_step(values: dict[str, Any]) -> tuple[list[float], int]:
    times, step = _times(values), take(values, "step", int)
    if not 0 <= step < len(times) - 1:
        raise BadInput(f"got step {step} but expected 0..{len(times) - 2}")
    return times, step


def _advance_one(image: dict[str, Any], t: float, t_next: float) -> Tensor:
    latent, velocities, choice = _answered(image)
    return _requester().advance(latent, velocities, choice, t, t_next)


def _answered(image: dict[str, Any]) -> tuple[Tensor, dict[int, Tensor], Choice]:
    from baguette.mixture import Choice
    from baguette.worker.tensor import unpack_tensor

    choice = Choice(tuple(image["experts"]), tuple(image["weights"]), margin=0.0)
    velocities = {expert: unpack_tensor(blob, 3) for expert, blob in image["velocities"]}
    if velocities.keys() != set(choice.experts):
        raise BadInput(
            f"got velocities of {sorted(velocities)} but expected {sorted(choice.experts)}"
        )
    return unpack_tensor(image["latent"], 3), velocities, choice


def decode(payload: bytes) -> bytes:
    """{latents, text} -> {images: [{png, pixels_sha256, latent_sha256}], micros}."""
    from baguette.image import tensor_sha256, to_png
    from baguette.worker.tensor import unpack_tensor

    begun = time.perf_counter()
    values = unpack(payload)
    texts = take(values, "text", list)
    images = []
    for blob, text in zip(take(values, "latents", list), texts, strict=True):
        latent = unpack_tensor(blob, 3)
        pixels = _requester().decode(latent)
        images.append(
            {
                "png": to_png(pixels, text),
                "pixels_sha256": tensor_sha256(pixels),
                "latent_sha256": tensor_sha256(latent),
            }
        )
    return pack({"images": images, "micros": micros_since(begun)})


def stats(_payload: bytes) -> bytes:
    """{} -> this process's figures."""
    return pack(process_figures())


def _routed(latents: list[Tensor], t: float, top_k: int | None) -> dict[str, Any]:
    begun = time.perf_counter()
    choices = [_requester().route(latent, t, top_k) for latent in latents]
    images = [_image(*pair) for pair in zip(latents, choices, strict=True)]
    return {
        "images": images,
        "t": t,
        "network_t": _requester().network_time(t),
        "route_micros": micros_since(begun),
    }


def _image(latent: Tensor, choice: Choice) -> dict[str, Any]:
    return {
        "latent": _blob(latent),
        "experts": list(choice.experts),
        "weights": list(choice.weights),
        "margin": choice.margin,
    }


def _blob(latent: Tensor) -> bytes:
    from baguette.worker.tensor import pack_tensor

    return pack_tensor(latent)


def _times(values: dict[str, Any]) -> list[float]:
    steps = take(values, "steps", int)
    if steps < 1:
        raise BadInput(f"got steps={steps} but expected at least 1")
    return _requester().times(steps)


def _requester() -> Requester:
    if not _loaded:
        raise BadInput("no model is loaded in this pipeline worker; call load first")
    return _loaded[0]


ENTRIES = {
    (__name__, function.__name__): function
    for function in (load, encode, start, advance, preview, decode, stats)
}
