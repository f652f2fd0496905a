"""Expert calls, several at once: rows of any pictures, steps and nodes as one batch.

Called by `expert_entry`. Calls that want the same bytes in any company (`canonical`) are computed a
row at a time; all others of one expert are one batch, whose rows have their own times, contexts and
guidance.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baguette.errors import BadInput, NotFinite
from baguette.families.paris.expert import PreparedExpert, Row, context_names
from baguette.finite import all_finite
from baguette.worker import company
from baguette.worker.held import Held, Served
from baguette.worker.payload import pack, take, unpack
from baguette.worker.spent import spent
from baguette.worker.state import micros_since
from baguette.worker.tensor import pack_tensor, unpack_tensor

MAX_ROWS = 256
Velocities = Tensor | list[str]
"""Guided velocities (N, C, S, S) of a call's rows, or the hashes of contexts not known here."""


@dataclass(frozen=True)
class Ask:
    """One call: an expert, rows, and the contexts that its asker was asked for."""

    expert: PreparedExpert
    rows: list[Row]
    canonical: bool
    contexts: list[tuple[str, Tensor]]
    dtype: torch.dtype  # of its latents, and of its answer: who asks in few bytes gets few

    @property
    def group(self) -> int:
        return id(self.expert)


def answers(
    payloads: Sequence[bytes], holding: Callable[[str], Held], served: Served
) -> list[company.Answer]:
    """Each call's answer, in order; `expert_entry.velocity` says what they hold."""
    begun = time.perf_counter()
    return company.answers(
        payloads,
        read=partial(_read, holding),
        compute=partial(_compute, served),
        write=partial(_write, begun),
    )


def _read(holding: Callable[[str], Held], payload: bytes) -> Ask:
    values = unpack(payload)
    expert = holding(take(values, "component", str)).expert
    given = _given(take(values, "rows", list))
    latents = [unpack_tensor(take(row, "latent", bytes), 3) for row in given]
    shape = (expert.module.config.in_channels, *[expert.module.config.image_size] * 2)
    for latent in latents:
        if tuple(latent.shape) != shape or latent.dtype != latents[0].dtype:
            raise BadInput(
                f"got a latent of {latent.dtype} {tuple(latent.shape)} but expected "
                f"{latents[0].dtype} {shape}"
            )
    if not latents[0].is_floating_point():
        raise BadInput(f"got latents of {latents[0].dtype} but expected floating point numbers")
    contexts = [
        (take(context, "hash", str), unpack_tensor(context.get("tensor"), 2).float())
        for context in take(values, "contexts", list)
    ]
    rows = [_row(row, latent) for row, latent in zip(given, latents, strict=True)]
    return Ask(expert, rows, take(values, "canonical", bool), contexts, latents[0].dtype)


def _given(values: list[Any]) -> list[dict[str, Any]]:
    if not 1 <= len(values) <= MAX_ROWS:
        raise BadInput(f"got {len(values)} rows but expected 1..{MAX_ROWS}")
    return values


def _row(values: dict[str, Any], latent: Tensor) -> Row:
    return Row(
        latent=latent.float(),
        t=float(take(values, "t", (int, float))),
        network_t=float(take(values, "network_t", (int, float))),
        context=take(values, "context", str),
        null_context=take(values, "null", str),
        guidance_scale=float(take(values, "scale", (int, float))),
    )


def _compute(served: Served, asks: Sequence[Ask]) -> list[Velocities]:
    """Calls of one expert as one batch, or one canonical call row by row."""
    expert = asks[0].expert
    # What one of them brings must not push out what another needs.
    keep = {name for ask in asks for name in context_names(ask.rows)}
    for ask in asks:
        for name, tensor in ask.contexts:
            expert.learn(name, tensor, keep=keep)
    unknown = [expert.missing(ask.rows) for ask in asks]
    known = [ask for ask, missing in zip(asks, unknown, strict=True) if not missing]
    rows = [row for ask in known for row in ask.rows]
    batches = [[row] for row in rows] if asks[0].canonical else [rows]
    computed = [_timed(served, expert, batch) for batch in batches if batch]
    served.calls += len(known)
    counts = [len(ask.rows) for ask in known]
    velocities = iter(torch.cat(computed).split(counts) if computed else ())
    return [missing or next(velocities) for missing in unknown]


def _timed(served: Served, expert: PreparedExpert, rows: list[Row]) -> Tensor:
    start = time.perf_counter()
    velocities = expert.velocity(rows)
    if len(rows) == 1:
        served.image(micros_since(start))
    return velocities


def _write(begun: float, ask: Ask, velocities: Velocities) -> bytes:
    if isinstance(velocities, list):
        return pack({"unknown": velocities})
    # What is too large for half precision is as useless as what was no number before.
    told = velocities.to(ask.dtype)
    if not all_finite(told):
        raise NotFinite("the expert's velocity is not finite")
    spent.mark("compute")
    blobs = [pack_tensor(velocity) for velocity in told]
    return pack({"velocities": blobs, "micros": micros_since(begun)})
