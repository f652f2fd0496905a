"""Entry points of the expert worker: bytes in, bytes out, each payload a msgpack map.

`inventory` needs no torch, so a node can be placed while `warm` still imports it; everything
heavy is imported inside the functions for that reason. Never imports transformers or diffusers.
The experts loaded here die with the process; the owner loads them again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette.errors import BadInput, NotFinite, NotHeld, WeightsError
from baguette.worker.payload import pack, take, unpack
from baguette.worker.state import micros_since, process_figures

if TYPE_CHECKING:
    from baguette.families.paris.expert import PreparedExpert, Row

MAX_ROWS = 256
PROBE_CALLS = 3

_experts: dict[str, PreparedExpert] = {}


def inventory(payload: bytes) -> bytes:
    """{model_dir} -> {name, experts, defaults, example_prompt, components}.

    `experts` names the component of expert number 0, 1, ...; `components` are those on this disk,
    {name, number, size_mib, key}.
    """
    from baguette.families.paris.config import ModelConfig
    from baguette.families.paris.files import component_name
    from baguette.families.paris.files import inventory as on_disk

    model_dir = Path(take(unpack(payload), "model_dir", str))
    config = ModelConfig.read(model_dir)
    return pack(
        {
            "name": config.name,
            "experts": [component_name(config, number) for number in range(config.num_experts)],
            "defaults": config.defaults.to_json(),
            "example_prompt": config.example_prompt,
            "components": [vars(file) for file in on_disk(model_dir)],
        }
    )


def warm(payload: bytes) -> bytes:
    """{threads} -> {}: import torch and pin the threads, before there is anything to compute."""
    from baguette.device import pin_threads
    from baguette.families.paris import loading  # noqa: F401

    pin_threads(take(unpack(payload), "threads", int))
    return pack({})


def load(payload: bytes) -> bytes:
    """{model_dir, component, key} -> {micros}; refuses a file whose key is not the one named."""
    from baguette.families.paris.files import inventory as on_disk
    from baguette.families.paris.loading import load_expert

    start = time.perf_counter()
    values = unpack(payload)
    name, model_dir = take(values, "component", str), Path(take(values, "model_dir", str))
    file = next((file for file in on_disk(model_dir) if file.name == name), None)
    if file is None:
        raise WeightsError(f"{name} is not in {model_dir}: fetch it before it can be held here")
    if file.key != take(values, "key", str):
        raise WeightsError(
            f"{name} on this disk is not the file that was announced; restart the node"
        )
    _experts[name] = load_expert(model_dir, file.number)
    return pack({"micros": micros_since(start)})


def unload(payload: bytes) -> bytes:
    """{component} -> {}: forget it; forgetting what is not held is no error."""
    _experts.pop(take(unpack(payload), "component", str), None)
    return pack({})


def velocity(payload: bytes) -> bytes:
    """{component, canonical, rows, contexts} -> {velocities, micros} or {unknown: [hash]}.

    A row is {latent, t, network_t, context, null, scale}: latent a (C, S, S) f32 blob, t in
    [0, 1], the two contexts by hash. `contexts` are [{hash, tensor}] the caller was asked for.
    Velocities come back guided, (C, S, S) f32 blobs in row order. `canonical` computes one row at
    a time, so that its bytes do not depend on company.
    """
    from baguette.worker.tensor import pack_tensor, unpack_tensor

    start = time.perf_counter()
    values = unpack(payload)
    expert = _held(take(values, "component", str))
    rows = _rows(take(values, "rows", list))
    for context in take(values, "contexts", list):
        expert.learn(take(context, "hash", str), unpack_tensor(context.get("tensor"), 2).float())
    unknown = expert.missing(rows)
    if unknown:
        return pack({"unknown": unknown})
    answers = _compute(expert, rows, canonical=take(values, "canonical", bool))
    return pack({"velocities": [pack_tensor(v) for v in answers], "micros": micros_since(start)})


def probe(payload: bytes) -> bytes:
    """{component, batches} -> {micros: {batch: median per call}} of the real component."""
    import torch

    from baguette.families.paris.expert import Row

    values = unpack(payload)
    expert = _held(take(values, "component", str))
    config = expert.module.config
    latent = torch.zeros(config.in_channels, config.image_size, config.image_size)
    expert.learn("probe", torch.zeros(1, config.text_embed_dim))
    row = Row(latent, 0.5, 500.0, "probe", "probe", 1.0)
    micros = {}
    for batch in take(values, "batches", list):
        expert.velocity([row] * batch)
        micros[str(batch)] = sorted(_time(expert, [row] * batch) for _ in range(PROBE_CALLS))[1]
    return pack({"micros": micros})


def stats(_payload: bytes) -> bytes:
    """{} -> this process's figures and what it holds."""
    return pack({**process_figures(), "components": sorted(_experts)})


def _time(expert: PreparedExpert, rows: list[Row]) -> int:
    start = time.perf_counter()
    expert.velocity(rows)
    return micros_since(start)


def _held(name: str) -> PreparedExpert:
    expert = _experts.get(name)
    if expert is None:
        raise NotHeld(f"{name} is not loaded in this worker")
    return expert


def _rows(values: list[Any]) -> list[Row]:
    from baguette.families.paris.expert import Row
    from baguette.worker.tensor import unpack_tensor

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


def _compute(expert: PreparedExpert, rows: list[Row], canonical: bool) -> list[Any]:
    import torch

    shape = (expert.module.config.in_channels, *[expert.module.config.image_size] * 2)
    for row in rows:
        if tuple(row.latent.shape) != shape:
            raise BadInput(f"got a latent of shape {tuple(row.latent.shape)} but expected {shape}")
    groups = [[row] for row in rows] if canonical else [rows]
    answers = [velocity for group in groups for velocity in expert.velocity(group)]
    if not all(bool(torch.isfinite(answer).all()) for answer in answers):
        raise NotFinite("the expert's velocity is not finite")
    return answers


ENTRIES = {
    (__name__, function.__name__): function
    for function in (inventory, warm, load, unload, velocity, probe, stats)
}
