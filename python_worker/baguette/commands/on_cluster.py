"""`generate --cluster NODE`: the same request, answered by a running cluster.

Called by `commands.generate`, and by `remote generate` with a node of its own. A node named by a
URL is asked over HTTP; any other way the package does not know: whoever does sets `connect`, as the
repository's generate.py does. The cluster has a model of its own, so options about this process'
model and device are refused. What dies with it: the connection, and the generation with that.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from baguette.commands.asked import given_request, outputs, prompts
from baguette.commands.drawn import Drawn, counted, finish, say, stream, warn
from baguette.commands.over_http import over_http
from baguette.commands.preview import Colours, colours_of
from baguette.commands.progress import Bar, bar
from baguette.errors import BadInput
from baguette.png import with_texts
from baguette.remote.node import Node
from baguette.remote.place import given_token, read_place

OURS = ("model", "precision", "offload", "device", "compile", "threads")
EXAMPLE = "a cute cat"
Result = dict[str, Any]


class Cluster(Protocol):
    """A running cluster that can be asked."""

    node: str
    num_experts: int

    def draw(self, request: dict[str, Any], progress: Bar) -> Result:
        """A finished generation: images (png in base64), routing, seconds, who answered."""


Connection = AbstractContextManager[Cluster]
connect: Callable[[str], Connection] | None = None


def run(args: argparse.Namespace) -> int:
    """Ask the cluster that was named."""
    given = [f"--{name}" for name in OURS if getattr(args, name)]
    if given:
        raise BadInput(f"{', '.join(given)} cannot be asked of a cluster: leave it out")
    return draw(args, requests(args), _way_to(args.cluster))


def _way_to(named: str) -> Callable[[], Connection]:
    """How the cluster is reached."""
    if "://" in named:
        place = read_place("--cluster", named)
        node = Node(place, given_token(None, place))
        return lambda: over_http(node)
    if connect is None:
        raise BadInput(
            "--cluster without http:// is for `python generate.py` of the repository, which knows "
            "its clusters"
        )
    known = connect
    return lambda: known(named)


def draw(
    args: argparse.Namespace, wanted: Sequence[dict[str, Any]], reach: Callable[[], Connection]
) -> int:
    """Ask for every prompt in turn, write, tell."""
    places = outputs(args, "cluster", len(wanted), wanted[0]["n"])
    with reach() as cluster:
        images, asked = counted(places.images, "image"), counted(len(wanted), "prompt")
        say(stream(places), [f"Drawing {asked} on {cluster.node}: {images}"])
        results = [_draw(cluster, request, previews(args)) for request in wanted]
        finish(gather(cluster, wanted, results, args.embed_prompt), places)
    return 0


def previews(args: argparse.Namespace) -> Colours | None:
    """What the terminal can show of a picture; nothing where none are wanted."""
    wanted = not getattr(args, "no_preview", False)
    return colours_of(sys.stderr.isatty(), os.environ) if wanted else None


def requests(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the cluster is asked; its own checks and defaults apply to what is left out."""
    more = given_request(args)
    for name, value in (("top_k", args.topk), ("negative_prompt", args.negative_prompt)):
        more |= {} if value is None else {name: value}
    more |= {"deterministic": True} if args.deterministic else {}
    return [{"prompt": prompt, **more} for _, prompt in prompts(args) or [("", EXAMPLE)]]


def _draw(cluster: Cluster, request: dict[str, Any], colours: Colours | None) -> Result:
    with bar("step", request.get("steps"), colours) as progress:
        result = cluster.draw(request, progress)
    warn(result["warnings"])
    return result


def gather(
    cluster: Cluster, wanted: Sequence[dict[str, Any]], results: Sequence[Result], embed: bool
) -> Drawn:
    """The pictures of every prompt, in order."""
    images = [
        {**image, "prompt": request["prompt"]}
        for request, result in zip(wanted, results, strict=True)
        for image in result["images"]
    ]
    seconds: Counter[str] = Counter()
    for result in results:
        seconds.update(result["seconds"])
    first = results[0]
    routing = [image for result in results for image in result["routing"]]
    about = f"cluster of {cluster.node}, {first['steps']} steps, seed {first['seed']}"
    return Drawn(
        pngs=[_png(image, wanted[0] if embed else {}) for image in images],
        grid={
            "baguette:seed": str(first["seed"]),
            "baguette:steps": str(first["steps"]),
            **({"baguette:prompt": "\n".join(r["prompt"] for r in wanted)} if embed else {}),
        },
        routing=[[step["experts"] for step in image] for image in routing],
        num_experts=cluster.num_experts,
        record={
            **first,
            "cluster": cluster.node,
            "prompt": wanted[0]["prompt"],
            "images": images,
            "routing": routing,
            "seconds": dict(seconds),
            "calls": [call for result in results for call in result["calls"]],
        },
        about=about,
    )


def _png(image: dict[str, Any], embedded: dict[str, Any]) -> bytes:
    """The picture's bytes as the cluster made them, or with the words it was drawn from."""
    png = base64.b64decode(image.pop("png"))
    if not embedded:
        return png
    negative = embedded.get("negative_prompt")
    more = {"baguette:negative_prompt": negative} if negative else {}
    return with_texts(png, {"baguette:prompt": image["prompt"], **more})
