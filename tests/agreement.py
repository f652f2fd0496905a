"""Holding a cluster's result against the single-process pipeline's: by bytes, or by a tolerance.

A tolerance holds for a picture drawn with the same routing only, so it is imposed (`undisturbed`).
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from baguette.pipeline import Generation, Pipeline

Result = dict[str, Any]
HASHES = ("seed", "latent_sha256", "pixels_sha256")


def undisturbed(pipeline: Pipeline, request: dict[str, Any], replay: Any = None) -> Generation:
    """The reference's drawing of a request as the cluster takes it, perhaps with its routing."""
    engine_only = ("prompt", "deterministic")
    options = {name: value for name, value in request.items() if name not in engine_only}
    if options.get("top_k") == "full":
        options["top_k"] = None
    return pipeline(pipeline.request(request["prompt"], **options), replay=replay)


def reference(pipeline: Pipeline, request: dict[str, Any]) -> Result:
    """The reference's record of a request as the cluster takes it."""
    return undisturbed(pipeline, request).to_json()


def differences(result: Result, drawn: Generation) -> list[int]:
    """For each image how far its farthest channel is from the other's, in steps of 8 bit."""
    return [
        int(np.abs(_pixels(image["png"]) - wanted.numpy().astype(int)).max())
        for image, wanted in zip(result["images"], drawn.pixels, strict=True)
    ]


def _pixels(png: str) -> np.ndarray:
    """A PNG in base64, as control nodes hand it on -> int (H, W, 3)."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def same(result: Result, expected: Result) -> None:
    """Assert that latents, pixels, experts, weights and margins are equal to the last bit."""
    assert result["threads"] == expected["threads"]
    assert [[image[h] for h in HASHES] for image in result["images"]] == [
        [image[h] for h in HASHES] for image in expected["images"]
    ]
    for image, wanted in zip(result["routing"], expected["routing"], strict=True):
        for step, line in zip(image, wanted, strict=True):
            assert tuple(step["experts"]) == tuple(line["experts"])
            assert tuple(step["weights"]) == tuple(line["weights"])
            assert step["margin"] == line["margin"]


def first_asked(expected: Result, earliest: int) -> tuple[int, int]:
    """(step from 0, expert): an expert that is first asked at or after `earliest`, if there is one.

    Where every expert was asked before, the one asked first latest.
    """
    first: dict[int, int] = {}
    for step, line in enumerate(expected["routing"][0]):
        for expert in line["experts"]:
            first.setdefault(expert, step)
    late = sorted((step, e) for e, step in first.items() if step >= earliest)
    return late[0] if late else max((step, e) for e, step in first.items())
