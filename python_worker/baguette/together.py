"""Sampling as fast as it goes: of a step, all images that ask one expert go to it as one batch.

Batches share the cores of a CPU out among themselves (`lanes.py`). Called by the pipeline for
requests that need not be deterministic: a row's last bits depend on how many rows stand beside it.
Latents stay where they are computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from baguette.ensemble import Ensemble
from baguette.errors import NotFinite
from baguette.families.paris.expert import Context, Row
from baguette.families.paris.requester import Requester
from baguette.finite import all_finite
from baguette.generation import Generation, Progress
from baguette.mixture import Choice
from baguette.replay import Routing
from baguette.reuse import ASKED, Drift, drifts
from baguette.sampler import euler_step

# Images a call: more gain nothing where one such call fills the device, and cost memory.
BATCH = 16
DECODED = 4


def draw(
    requester: Requester,
    ensemble: Ensemble,
    done: Generation,
    progress: Progress | None,
    imposed: Routing | None,
) -> None:
    """Fill `done` with the pictures of its request, their latents and their routing."""
    request = done.request
    lanes, costs = ensemble.lanes, ensemble.costs
    with done.timed("encode"):
        encode = partial(requester.prompts, request)
        prompts = lanes.start(encode, lanes.cores(1, costs.text)).result()
    latents = _sample(requester, ensemble, done, prompts, progress, imposed)
    with done.timed("decode"):
        most = lanes.share(request.n, DECODED)
        batches = [partial(requester.decode_together, part) for part in latents.split(most)]
        decoded = lanes.start_all(batches, most * costs.decoder)
        done.pixels = [pixels for batch in decoded for pixels in batch.result()]
    done.latents = list(latents.cpu())


def _sample(
    requester: Requester,
    ensemble: Ensemble,
    done: Generation,
    prompts: tuple[Context, Context],
    progress: Progress | None,
    imposed: Routing | None,
) -> Tensor:
    """The latents (N, C, S, S) fp32 at t = 0, where they were computed."""
    request = done.request
    start = [requester.start(request.seed + i) for i in range(request.n)]
    latents = torch.stack(start).to(requester.device)
    done.routing, done.reused = [[] for _ in start], [[] for _ in start]
    times = requester.times(request.steps)
    moved: list[float] = []
    drift = [ASKED for _ in start]
    last: dict[int, Tensor] = {}
    for step, (t, t_next) in enumerate(itertools.pairwise(times)):
        with done.timed("route"):
            choices = (
                _route(requester, ensemble, latents, t, request.top_k)
                if imposed is None
                else [image[step] for image in imposed]
            )
        if step > 0 and request.cache > 0:
            drift = drifts(
                request.cache,
                drift,
                moved,
                [image[-1].experts for image in done.routing],
                [choice.experts for choice in choices],
                steps_left=request.steps - 1 - step,
            )
        if progress:
            progress(step, request.steps, [choice.experts for choice in choices])
        rows = [requester.row(latent, t, prompts, request.guidance_scale) for latent in latents]
        with done.timed("experts"):
            _ask(ensemble, rows, _chosen(choices, drift), prompts, last)
            velocity = _mixed(latents, choices, last)
        with done.timed("advance"):
            was, latents = latents, euler_step(latents, velocity, t, t_next)
            if request.cache > 0:
                moved = requester.moved(was, latents, t, t_next)
            for i, choice in enumerate(choices):
                done.routing[i].append(choice)
                done.reused[i].append(drift[i].reused)
    return latents


def _route(
    requester: Requester, ensemble: Ensemble, latents: Tensor, t: float, top_k: int | None
) -> list[Choice]:
    most = ensemble.lanes.share(len(latents), BATCH)
    calls = [requester.routing(part, t, top_k) for part in latents.split(most)]
    started = ensemble.lanes.start_all(calls, most * ensemble.costs.router)
    return [choice for part in started for choice in part.result()]


def _chosen(choices: Sequence[Choice], drifts: Sequence[Drift]) -> dict[int, list[int]]:
    """Each expert with the images that ask it."""
    asking: dict[int, list[int]] = {}
    for image, (choice, one) in enumerate(zip(choices, drifts, strict=True)):
        for number in () if one.reused else choice.experts:
            asking.setdefault(number, []).append(image)
    return asking


def _ask(
    ensemble: Ensemble,
    rows: Sequence[Row],
    asking: dict[int, list[int]],
    prompts: tuple[Context, Context],
    last: dict[int, Tensor],
) -> None:
    """Put answers into `last`: of each expert its last velocity of every image, (N, C, S, S)."""
    if not asking:
        return
    lanes = ensemble.lanes
    most = lanes.share(sum(map(len, asking.values())), BATCH)
    count = sum(-(-len(images) // most) for images in asking.values())
    cores = lanes.cores(count, 2 * most * ensemble.costs.expert)
    answers: dict[int, list[Future[Tensor]]] = {}
    # The largest first: what is left to the end is small, and no lane waits long for another.
    for number, expert in ensemble.visit(sorted(asking, key=lambda n: -len(asking[n]))):
        batch = [rows[image] for image in asking[number]]
        expert.learn_missing(batch, prompts)
        calls = [expert.together(part) for part in parts(batch, most)]
        answers[number] = [lanes.start(call, cores) for call in calls]
    like = rows[0].latent
    for number, images in asking.items():
        if number not in last:
            last[number] = like.new_zeros((len(rows), *like.shape))
        last[number][images] = torch.cat([answer.result() for answer in answers[number]])


def _mixed(latents: Tensor, choices: Sequence[Choice], last: dict[int, Tensor]) -> Tensor:
    """Every image's mixed velocity (N, C, S, S) fp32: weights times answers, in expert order."""
    weights = [dict(zip(choice.experts, choice.weights, strict=True)) for choice in choices]
    total = torch.zeros_like(latents)
    for number in sorted(last):
        # Nought for whom it was asked by earlier only.
        shares = torch.tensor([image.get(number, 0.0) for image in weights])[:, None, None, None]
        total += shares.to(total) * last[number]
    if not all_finite(total):
        raise NotFinite("a velocity is not finite: is an expert damaged?")
    return total


def parts(rows: Sequence[Row], most: int) -> Iterator[Sequence[Row]]:
    """As few parts as hold at most so many rows each, of nearly equal lengths."""
    count = -(-len(rows) // most)
    for i in range(count):
        yield rows[i * len(rows) // count : (i + 1) * len(rows) // count]
