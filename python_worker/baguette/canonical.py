"""Sampling by canonical calls: one image and one expert at a time, as a cluster asks them.

What comes out depends on nothing but the request, the weights, the device and the thread count.
Called by the pipeline for deterministic requests.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from baguette.ensemble import Ensemble
from baguette.errors import NotFinite
from baguette.families.paris.expert import Context, PreparedExpert, Row
from baguette.families.paris.requester import Requester
from baguette.finite import all_finite
from baguette.generation import Generation, Progress
from baguette.replay import Routing


def draw(
    requester: Requester,
    ensemble: Ensemble,
    done: Generation,
    progress: Progress | None,
    imposed: Routing | None,
) -> None:
    """Fill `done` with the pictures of its request, their latents and their routing."""
    request = done.request
    with done.timed("encode"):
        prompts = requester.prompts(request)
    _sample(requester, ensemble, done, prompts, progress, imposed)
    with done.timed("decode"):
        done.pixels = [requester.decode(latent) for latent in done.latents]


def _sample(
    requester: Requester,
    ensemble: Ensemble,
    done: Generation,
    prompts: tuple[Context, Context],
    progress: Progress | None,
    imposed: Routing | None,
) -> None:
    request = done.request
    done.latents = [requester.start(request.seed + i) for i in range(request.n)]
    done.routing = [[] for _ in done.latents]
    done.reused = [[False] * request.steps for _ in done.latents]
    times = requester.times(request.steps)
    for step, (t, t_next) in enumerate(itertools.pairwise(times)):
        with done.timed("route"):
            choices = (
                [requester.route(x, t, request.top_k) for x in done.latents]
                if imposed is None
                else [image[step] for image in imposed]
            )
        if progress:
            progress(step, request.steps, [choice.experts for choice in choices])
        for i, choice in enumerate(choices):
            done.routing[i].append(choice)
            row = requester.row(done.latents[i], t, prompts, request.guidance_scale)
            with done.timed("experts"):
                answers = {e: _ask(x, row, prompts, e) for e, x in ensemble.visit(choice.experts)}
            with done.timed("advance"):
                done.latents[i] = requester.advance(row.latent, answers, choice, t, t_next)


def _ask(expert: PreparedExpert, row: Row, prompts: tuple[Context, Context], number: int) -> Tensor:
    expert.learn_missing([row], prompts)
    velocity = expert.velocity([row])[0]
    if not all_finite(velocity):
        raise NotFinite(f"expert {number} answered with a velocity that is not finite")
    return velocity
