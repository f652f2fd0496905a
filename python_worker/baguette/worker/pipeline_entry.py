"""Entry points of the pipeline worker: encode, start, advance, preview, decode; bytes to bytes.

Holds one `Requester` (text encoder, router, sampler, VAE). It keeps nothing of a generation
between calls, so a restarted worker goes on from any step. Heavy imports happen in `load`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.errors import BadInput
from baguette.worker.company import Answer, only
from baguette.worker.cores import give_way_before
from baguette.worker.payload import pack, take, unpack
from baguette.worker.spent import frames
from baguette.worker.state import micros_since, process_figures, stays

if TYPE_CHECKING:
    from baguette.families.paris.expert import Context
    from baguette.families.paris.requester import Requester

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
    give_way_before([*requester.router.module.layers, *requester.decoder.layers()])
    # The first call of a kernel pays for its set-up; pay here, not in somebody's first picture.
    requester.encode(requester.config.example_prompt)
    latent = requester.start(0)
    requester.route(latent, 1.0, 1)
    requester.decode(latent)
    _loaded[:] = [requester]
    stays()
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
    """{seeds, steps, top_k, canonical} -> {images, t, network_t, route_micros}.

    Noise, and the first routing. An image is {latent, experts, weights, margin}; top_k nil asks
    every expert. What is `canonical` has the same bytes in any company; all others have `ask`
    besides, the latent in half precision, which is what experts are sent.
    """
    return only(starts([payload]))


def starts(payloads: Sequence[bytes]) -> list[Answer]:
    """The same of several calls."""
    from baguette.worker import steps

    return steps.routed(_requester(), steps.started, payloads)


def advance(payload: bytes) -> bytes:
    """{step, steps, top_k, cache, images} -> the next latents, routed unless it was the last step.

    `step` counts from 0. An image in is {latent, experts, weights, change, velocities}, the
    velocities as [[expert, blob]] in any order. Adds advance_micros to what `start` returns; an
    image that is to use its velocities again comes with its new `change`.
    """
    return only(advances([payload]))


def advances(payloads: Sequence[bytes]) -> list[Answer]:
    """The same of several calls."""
    from baguette.worker import steps

    return steps.routed(_requester(), steps.advanced, payloads)


def prepare(_payload: bytes) -> bytes:
    """{} -> {done}: a short piece more of what all previews need."""
    return pack({"done": _requester().look.prepare()})


def preview(payload: bytes) -> bytes:
    """What `advance` gets -> {pngs}: roughly what its images will be, made while experts compute.

    nil where not all is prepared; the call was a piece of that then.
    """
    from baguette.image import to_png
    from baguette.worker import steps

    values = unpack(payload)
    times, step = steps.at_step(_requester(), values)
    if not _requester().look.prepare():
        return pack({"pngs": None})
    answered = [steps.answered(image) for image in take(values, "images", list)]
    pixels = [_requester().preview(*one, times[step]) for one in answered]
    return pack({"pngs": [to_png(one) for one in pixels]})


def decode(payload: bytes) -> bytes:
    """{latents, text, canonical} -> {images: [{png, pixels_sha256, latent_sha256}], micros}."""
    return only(decodes([payload]))


def decodes(payloads: Sequence[bytes]) -> list[Answer]:
    """The same of several calls."""
    from baguette.worker import steps

    return steps.decoded(_requester(), payloads)


def stats(_payload: bytes) -> bytes:
    """{} -> this process's figures."""
    return pack(process_figures())


def _requester() -> Requester:
    if not _loaded:
        raise BadInput("no model is loaded in this pipeline worker; call load first")
    return _loaded[0]


ENTRIES = {
    (__name__, function.__name__): function
    for function in (load, encode, start, advance, prepare, preview, decode, stats, frames)
}
TOGETHER = {
    (__name__, start.__name__): starts,
    (__name__, advance.__name__): advances,
    (__name__, decode.__name__): decodes,
}
