"""Every picture's undisturbed twin, beside it: what the checker holds the picture to.

On a real model the twin comes from the single-process pipeline in this process; where the request
was not deterministic, with the routing that the cluster recorded. Simulated pictures have no such
pipeline: theirs are drawn on the same cluster before the first fault.
"""

from __future__ import annotations

from typing import Any

from agreement import differences, undisturbed
from baguette.image import tensor_sha256
from baguette.pipeline import Pipeline
from chaos.history import Entry, History
from chaos.operations import Client
from chaos.plan import Generation, Plan

Hashes = dict[str, list[str]]  # generation -> of each of its images


def drawn_before(client: Client, plan: Plan) -> Hashes:
    """On a simulated cluster: every picture of the plan, before anything happens to it."""
    found = {}
    for generation in (*plan.generations, *plan.probes):
        name = f"{generation.name} undisturbed"
        entry = client.draw(Generation(name, client.number, generation.request))
        if entry.get("state") == "done":
            found[generation.name] = [image["pixels_sha256"] for image in entry["images"]]
    return found


def compare(history: History, plan: Plan, pipeline: Pipeline | None, before: Hashes) -> None:
    """Write a `twin` entry for every picture that was finished."""
    requests = {g.name: g.request for g in (*plan.generations, *plan.probes)}
    ends = [e for e in list(history.entries) if e["what"] == "end" and e["state"] == "done"]
    for end in ends:
        name = end["generation"]
        if name in requests and pipeline is not None:
            history.append("twin", generation=name, **beside(end, requests[name], pipeline))
        elif name in before:
            history.append("twin", generation=name, pixels_sha256=before[name])


def beside(end: Entry, request: dict[str, Any], pipeline: Pipeline) -> dict[str, Any]:
    """The reference's picture of this request, and how far the cluster's is from it."""
    replay = None if request["deterministic"] else end["routing"]
    twin = undisturbed(pipeline, request, replay)
    record = twin.to_json()
    return {
        "pixels_sha256": [tensor_sha256(pixels) for pixels in twin.pixels],
        "latent_sha256": [tensor_sha256(latent) for latent in twin.latents],
        "differs_by": differences(end, twin),
        "same_routing": plain(record["routing"]) == plain(end["routing"]),
    }


def plain(routing: Any) -> Any:
    """A routing as lists, whether it has come through JSON or not."""
    return [
        [[list(line["experts"]), list(line["weights"]), line["margin"]] for line in image]
        for image in routing
    ]
