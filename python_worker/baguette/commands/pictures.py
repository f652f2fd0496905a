"""What this process drew, as pictures with their texts and as the record for programs.

Called by `commands.generate`. The record has the fields of the cluster's out/demo.json where they
apply, so that the two can be held against each other. Nothing in a picture changes from run to run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.commands.drawn import Drawn, Routing
from baguette.families.paris.files import survey
from baguette.image import to_png
from baguette.manifest import Manifest

if TYPE_CHECKING:
    from baguette.commands.asked import Asked
    from baguette.generation import Generation
    from baguette.pipeline import Pipeline
    from baguette.request import GenerationRequest

REVISION_DIGITS = 16


def gather(pipeline: Pipeline, asked: Asked, done: Sequence[Generation]) -> Drawn:
    """The pictures of every prompt, in order."""
    routing = [image for one in done for image in _experts(one)]
    model = {
        "model": pipeline.config.name,
        "revision": revision(pipeline, asked.model_dir),
        "precision": asked.runtime.precision,
    }
    texts = {f"baguette:{name}": value for name, value in model.items()}
    first = asked.requests[0]
    grid = {**texts, **_texts(asked, first, first.seed, routing)}
    experts = "every expert" if first.top_k is None else f"top-{first.top_k}"
    return Drawn(
        pngs=[png for one in done for png in _pngs(asked, one, texts)],
        grid={**grid, "baguette:num_samples": str(first.n)},
        routing=routing,
        num_experts=pipeline.config.num_experts,
        record={**_record(pipeline, done), **model},
        about=f"{pipeline.config.name}, {first.steps} steps, {experts}, seed {first.seed}",
    )


def revision(pipeline: Pipeline, model_dir: Path) -> str:
    """What a set of weights is known by: of its manifest, without one of its components' keys."""
    lines = Manifest.read(model_dir).lines
    if lines is not None:
        content = [f"{name} {line.sha256}" for name, line in lines.items()]
    else:
        keys = [*pipeline.requester.keys.values(), *(file.key for file in survey(model_dir)[0])]
        content = [key.rpartition(":")[0] for key in keys]  # a key's last part is no file's
    return hashlib.sha256("\n".join(sorted(content)).encode()).hexdigest()[:REVISION_DIGITS]


def _experts(one: Generation) -> list[list[tuple[int, ...]]]:
    return [[choice.experts for choice in image] for image in one.routing]


def _pngs(asked: Asked, one: Generation, texts: dict[str, str]) -> list[bytes]:
    return [
        to_png(
            pixels,
            {**texts, **_texts(asked, one.request, one.request.seed + i, [image])}
            | _reuse_texts(one.request, saved),
        )
        for i, (pixels, image, saved) in enumerate(
            zip(one.pixels, _experts(one), one.saved(), strict=True)
        )
    ]


def _reuse_texts(request: GenerationRequest, saved: int) -> dict[str, str]:
    """Of a picture whose velocities may have been used again: below what, and how many."""
    if request.cache == 0:
        return {}
    return {"baguette:cache": repr(float(request.cache)), "baguette:reused": str(saved)}


def _texts(asked: Asked, request: GenerationRequest, seed: int, images: Routing) -> dict[str, str]:
    """What a picture says of its request; the first four stand in a cluster's pictures too."""
    used = {expert for steps in images for experts in steps for expert in experts}
    texts = {
        "baguette:guidance_scale": repr(float(request.guidance_scale)),
        "baguette:seed": str(seed),
        "baguette:steps": str(request.steps),
        "baguette:top_k": str(request.top_k or "full"),
        "baguette:experts": " ".join(str(expert) for expert in sorted(used)),
    }
    if asked.embed_prompt:
        prompts = [request.prompt] if len(images) == 1 else [r.prompt for r in asked.requests]
        texts["baguette:prompt"] = "\n".join(prompts)
        if request.negative_prompt:
            texts["baguette:negative_prompt"] = request.negative_prompt
    return texts


def _record(pipeline: Pipeline, done: Sequence[Generation]) -> dict[str, Any]:
    """Seed, steps, experts and weights per step, seconds per part, hashes."""
    parts = [one.to_json() for one in done]
    seconds: Counter[str] = Counter()
    for part in parts:
        seconds.update(part["seconds"])
    request = done[0].request
    return {
        **parts[0],
        "prompt": request.prompt,
        "prompt_sha256": hashlib.sha256(request.prompt.encode()).hexdigest(),
        "negative_prompt": request.negative_prompt,
        "deterministic": request.deterministic,
        "keys": pipeline.requester.keys,
        "notes": list(pipeline.notes),
        "warnings": list(dict.fromkeys(text for part in parts for text in part["warnings"])),
        "images": [
            {**image, "prompt": one.request.prompt}
            for one, part in zip(done, parts, strict=True)
            for image in part["images"]
        ],
        "routing": [image for part in parts for image in part["routing"]],
        "seconds": dict(seconds),
    }
