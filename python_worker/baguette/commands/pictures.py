"""What `generate` writes of what was drawn: pictures with their texts, and the record.

Called by `commands.generate`. The record has the fields of the cluster's out/demo.json where they
apply, so that the two can be held against each other. Nothing in a picture changes from run to run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.families.paris.files import survey
from baguette.image import to_png
from baguette.manifest import Manifest
from baguette.routing_figure import routing_figure
from baguette.sheet import sheet

if TYPE_CHECKING:
    from baguette.commands.options import Asked
    from baguette.pipeline import Generation, Pipeline
    from baguette.request import GenerationRequest

REVISION_DIGITS = 16
Routing = list[list[tuple[int, ...]]]  # per image and step the experts asked, largest weight first


def revision(pipeline: Pipeline, model_dir: Path) -> str:
    """What a set of weights is known by: of its manifest, without one of its components' keys."""
    lines = Manifest.read(model_dir).lines
    if lines is not None:
        content = [f"{name} {line.sha256}" for name, line in lines.items()]
    else:
        keys = [*pipeline.requester.keys.values(), *(file.key for file in survey(model_dir)[0])]
        content = [key.rpartition(":")[0] for key in keys]  # a key's last part is no file's
    return hashlib.sha256("\n".join(sorted(content)).encode()).hexdigest()[:REVISION_DIGITS]


def routing(done: Sequence[Generation]) -> Routing:
    """The experts of every image of every prompt, in order."""
    return [[choice.experts for choice in image] for one in done for image in one.routing]


def pictures(asked: Asked, done: Sequence[Generation], about: dict[str, str]) -> dict[Path, bytes]:
    """File -> PNG: the picture, a grid of several, or with --separate each by itself.

    `about` are the texts that every picture gets (`texts_of_model`).
    """
    pngs = [
        to_png(pixels, {**about, **_texts(asked, one.request, one.request.seed + i, [image])})
        for one in done
        for i, (pixels, image) in enumerate(zip(one.pixels, routing([one]), strict=True))
    ]
    if len(pngs) == 1:
        return {asked.output: pngs[0]}
    if asked.separate:
        name = asked.output
        names = [name.with_stem(f"{name.stem}_{i}") for i in range(1, len(pngs) + 1)]
        return dict(zip(names, pngs, strict=True))
    request = asked.requests[0]
    texts = _texts(asked, request, request.seed, routing(done))
    row = request.n if len(done) > 1 and request.n > 1 else None  # a prompt, a row
    grid = sheet(pngs, row, {**about, **texts, "baguette:num_samples": str(request.n)})
    return {asked.output: grid}


def texts_of_model(pipeline: Pipeline, asked: Asked) -> dict[str, str]:
    """What a picture says of the weights it was drawn with."""
    return {
        "baguette:model": pipeline.config.name,
        "baguette:revision": revision(pipeline, asked.model_dir),
        "baguette:precision": asked.runtime.precision,
    }


def _texts(asked: Asked, request: GenerationRequest, seed: int, images: Routing) -> dict[str, str]:
    """What a picture says of its request; the first four stand in a cluster's pictures too."""
    calls = Counter(expert for steps in images for experts in steps for expert in experts)
    texts = {
        "baguette:guidance_scale": repr(float(request.guidance_scale)),
        "baguette:seed": str(seed),
        "baguette:steps": str(request.steps),
        "baguette:top_k": str(request.top_k or "full"),
        "baguette:experts": " ".join(str(expert) for expert in sorted(calls)),
    }
    if asked.embed_prompt:
        prompts = [request.prompt] if len(images) == 1 else [r.prompt for r in asked.requests]
        texts["baguette:prompt"] = "\n".join(prompts)
        if request.negative_prompt:
            texts["baguette:negative_prompt"] = request.negative_prompt
    return texts


def figure(pipeline: Pipeline, asked: Asked, images: Routing) -> bytes:
    """The routing as a PNG, under one line that says of what."""
    request = asked.requests[0]
    experts = "every expert" if request.top_k is None else f"top-{request.top_k}"
    about = f"{pipeline.config.name}, {request.steps} steps, {experts}, seed {request.seed}"
    many = "" if len(images) == 1 else f"; timeline of image {asked.image} of 0..{len(images) - 1}"
    return routing_figure(images, asked.image, pipeline.config.num_experts, about + many)


def record(
    pipeline: Pipeline,
    asked: Asked,
    done: Sequence[Generation],
    files: Sequence[Path],
    about: dict[str, str],
) -> dict[str, Any]:
    """Seed, steps, experts and weights per step, seconds per part, hashes, files."""
    parts = [one.to_json() for one in done]
    images = [
        {**image, "prompt": one.request.prompt}
        for one, part in zip(done, parts, strict=True)
        for image in part["images"]
    ]
    own = files if len(files) == len(images) else [files[0]] * len(images)
    seconds: Counter[str] = Counter()
    for part in parts:
        seconds.update(part["seconds"])
    request = asked.requests[0]
    return {
        **parts[0],
        **{name.partition(":")[2]: text for name, text in about.items()},
        "prompt": request.prompt,
        "prompt_sha256": hashlib.sha256(request.prompt.encode()).hexdigest(),
        "negative_prompt": request.negative_prompt,
        "n": len(images),
        "deterministic": request.deterministic,
        "keys": pipeline.requester.keys,
        "notes": list(pipeline.notes),
        "warnings": list(dict.fromkeys(w for part in parts for w in part["warnings"])),
        "out": str(files[0]),
        "images": [{**image, "file": str(file)} for image, file in zip(images, own, strict=True)],
        "routing": [image for part in parts for image in part["routing"]],
        "seconds": dict(seconds),
        "pixels_sha256": images[0]["pixels_sha256"],
    }


def as_json(values: dict[str, Any]) -> bytes:
    """The record's bytes, with a line end."""
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()
