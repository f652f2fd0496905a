"""`generate --cluster NODE`: the same request, answered by a running cluster.

Called by `commands.generate`. The package knows no cluster: whoever does sets `connect`, as the
repository's generate.py does. The cluster has a model of its own, so options about this process'
model and device are refused. What dies with it: the connection, and the generation with that.
"""

from __future__ import annotations

import argparse
import base64
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from baguette.commands.asked import given_request, outputs, prompts
from baguette.commands.drawn import Drawn, counted, finish, say, stream, warn
from baguette.commands.progress import Progress, bar
from baguette.errors import BadInput, BaguetteError

OURS = ("model", "precision", "offload", "device", "compile", "threads", "embed_prompt")
EXAMPLE = "a cute cat"
Result = dict[str, Any]


class ClusterRefused(BaguetteError):
    """The cluster cannot be reached or did not draw; the message says why and what to do."""


class Cluster(Protocol):
    """A running cluster that can be asked."""

    node: str
    num_experts: int

    def draw(self, request: dict[str, Any], progress: Progress) -> Result:
        """A finished generation: images (png in base64), routing, seconds, who answered."""


connect: Callable[[str], AbstractContextManager[Cluster]] | None = None


def run(args: argparse.Namespace) -> int:
    """Ask for every prompt in turn, write, tell."""
    requests = _requests(args)
    places = outputs(args, "cluster", len(requests), requests[0]["n"])
    if connect is None:
        raise BadInput("--cluster is for `python generate.py` of the repository, which knows some")
    with connect(args.cluster) as cluster:
        images, asked = counted(places.images, "image"), counted(len(requests), "prompt")
        say(stream(places), [f"Drawing {asked} on {cluster.node}: {images}"])
        results = [_draw(cluster, request) for request in requests]
        finish(_gather(cluster, requests, results), places)
    return 0


def _requests(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the cluster is asked; its own checks and defaults apply to what is left out."""
    given = [f"--{name}" for name in OURS if getattr(args, name)]
    if given:
        raise BadInput(f"{', '.join(given)} cannot be asked of a cluster: leave it out")
    if "://" in args.cluster:
        raise BadInput(
            f"--cluster got {args.cluster!r} but a node has no prompts over HTTP yet: name one, "
            "e.g. --cluster 127.0.0.2"
        )
    more = given_request(args)
    for name, value in (("top_k", args.topk), ("negative_prompt", args.negative_prompt)):
        more |= {} if value is None else {name: value}
    more |= {"deterministic": True} if args.deterministic else {}
    return [{"prompt": prompt, **more} for _, prompt in prompts(args) or [("", EXAMPLE)]]


def _draw(cluster: Cluster, request: dict[str, Any]) -> Result:
    with bar("step", request.get("steps")) as progress:
        result = cluster.draw(request, progress)
    warn(result["warnings"])
    return result


def _gather(
    cluster: Cluster, requests: Sequence[dict[str, Any]], results: Sequence[Result]
) -> Drawn:
    images = [
        {**image, "prompt": request["prompt"]}
        for request, result in zip(requests, results, strict=True)
        for image in result["images"]
    ]
    seconds: Counter[str] = Counter()
    for result in results:
        seconds.update(result["seconds"])
    first = results[0]
    routing = [image for result in results for image in result["routing"]]
    about = f"cluster of {cluster.node}, {first['steps']} steps, seed {first['seed']}"
    return Drawn(
        pngs=[base64.b64decode(image.pop("png")) for image in images],
        grid={"baguette:seed": str(first["seed"]), "baguette:steps": str(first["steps"])},
        routing=[[step["experts"] for step in image] for image in routing],
        num_experts=cluster.num_experts,
        record={
            **first,
            "cluster": cluster.node,
            "prompt": requests[0]["prompt"],
            "images": images,
            "routing": routing,
            "seconds": dict(seconds),
            "calls": [call for result in results for call in result["calls"]],
        },
        about=about,
    )
