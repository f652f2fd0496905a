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
from baguette.worker import company
from baguette.worker.held import Held, Served
from baguette.worker.payload import pack, take, unpack
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
    rows = _rows(take(values, "rows", list))
    shape = (expert.module.config.in_channels, *[expert.module.config.image_size] * 2)
    for row in rows:
        if tuple(row.latent.shape) != shape:
            raise BadInput(f"got a latent of shape {tuple(row.latent.shape)} but expected {shape}")
    contexts = [
        (take(context, "hash", str), unpack_tensor(context.get("tensor"), 2).float())
        for context in take(values, "contexts", list)
    ]
    return Ask(expert, rows, take(values, "canonical", bool), contexts)


def _rows(values: list[Any]) -> list[Row]:
    if not 1 <= len(values) <= MAX_ROWS:
        raise BadInput(f"got {len(values)} rows but expected 1..{MAX_ROWS}")
    return [
        Row(
            latent=unpack_tensor(take(row, "latent", bytes), 3).float(),
            t=float(take(row, "t", (int, float))),
            network_t=float(take(row, "network_t", (int, float))),
            context=take(row, "context", str),
            null_context=take(row, "null", str),
            guidance_scale=float(take(row, "scale", (int, float))),
        )
        for row in values
    ]


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


def _write(begun: float, _ask: Ask, velocities: Velocities) -> bytes:
    if isinstance(velocities, list):
        return pack({"unknown": velocities})
    if not bool(torch.isfinite(velocities).all()):
        raise NotFinite("the expert's velocity is not finite")
    return pack({"velocities": [pack_tensor(v) for v in velocities], "micros": micros_since(begun)})
