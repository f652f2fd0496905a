"""Holding a cluster's result against the single-process pipeline's."""

from __future__ import annotations

from typing import Any

from baguette.pipeline import Pipeline

Result = dict[str, Any]
HASHES = ("seed", "latent_sha256", "pixels_sha256")


def reference(pipeline: Pipeline, request: dict[str, Any]) -> Result:
    """The reference's record of a request as the cluster takes it."""
    options = {name: value for name, value in request.items() if name != "prompt"}
    if options.get("top_k") == "full":
        options["top_k"] = None
    return pipeline(pipeline.request(request["prompt"], **options)).to_json()


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
