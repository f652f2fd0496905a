"""Entry points of the expert worker: bytes in, bytes out, each payload a msgpack map.

`machine` and `inventory` need no torch, so a node can be placed while `warm` still imports it;
everything heavy is imported inside the functions for that reason. Never imports transformers or
diffusers. The experts loaded here die with the process; the owner loads them again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from baguette.errors import BadInput, NotHeld, WeightsError
from baguette.kept import Kept
from baguette.worker.company import Answer, only
from baguette.worker.payload import pack, take, unpack
from baguette.worker.spent import frames
from baguette.worker.state import micros_since, process_figures, stays

if TYPE_CHECKING:
    from baguette.families.paris.contexts import ContextCache
    from baguette.families.paris.files import ComponentFile
    from baguette.worker.held import Explorer, Held, Served

MAX_BATCH = 256

_held: dict[str, Held] = {}
# Before `machine` is called nothing is kept on disk; `warm` makes the others.
_kept: list[Kept] = [Kept(None, {})]
_contexts: list[ContextCache] = []
_served: list[Served] = []
_explorer: list[Explorer] = []


def machine(payload: bytes) -> bytes:
    """{threads, probe_file} -> {hardware, device, memory_mib, figures}: what is known at once.

    memory_mib is what is free now where components lie. `figures` are those kept in probe_file
    (nil: none are kept) under this hardware and these versions; `explore` measures the rest.
    """
    from baguette import kept
    from baguette.machine import component_memory_mib, device, torch_build, use
    from baguette.machine import machine as look

    values = unpack(payload)
    seen, build = look(), torch_build()
    use(seen.gpus)
    on = device(seen, build)
    path = values.get("probe_file")
    key = kept.key(seen, build, on, take(values, "threads", int))
    _kept[:] = [Kept(Path(path) if isinstance(path, str) else None, key)]
    gpu = seen.gpus.found[0] if seen.gpus.found else None
    hardware = {
        "cpu": seen.cpu,
        "cores": seen.cores,
        "ram_mib": seen.ram_mib,
        "gpu": gpu.name if gpu else None,
        "vram_mib": gpu.vram_mib if gpu else 0,
        "driver": seen.gpus.driver,
        "no_gpu": seen.gpus.reason,
    }
    memory_mib = component_memory_mib(seen, on)
    figures = _kept[0].machine()
    return pack({"hardware": hardware, "device": on, "memory_mib": memory_mib, "figures": figures})


def inventory(payload: bytes) -> bytes:
    """{model_dir} -> {name, experts, defaults, example_prompt, side, components, refused}.

    `experts` names the component of expert number 0, 1, ...; `side` is a picture's width and
    height in pixels, nil where no decoder lies on this disk; `components` are those on this disk,
    {name, number, size_mib, key}; `refused` those whose files differ from the manifest,
    {name, file, why}.
    """
    from baguette.families.paris.config import ModelConfig
    from baguette.families.paris.files import component_name, picture_side, survey

    model_dir = Path(take(unpack(payload), "model_dir", str))
    config = ModelConfig.read(model_dir)
    found, refused = survey(model_dir)
    return pack(
        {
            "name": config.name,
            "experts": [component_name(config, number) for number in range(config.num_experts)],
            "defaults": config.defaults.to_json(),
            "example_prompt": config.example_prompt,
            "side": picture_side(model_dir, config),
            "components": [vars(file) for file in found],
            "refused": [vars(one) for one in refused],
        }
    )


def warm(payload: bytes) -> bytes:
    """{threads} -> {}: import torch and pin the threads, before there is anything to compute."""
    from baguette.device import pin_threads
    from baguette.families.paris import loading  # noqa: F401
    from baguette.families.paris.contexts import ContextCache
    from baguette.worker.held import Explorer, Served

    _contexts[:] = [ContextCache()]
    _served[:] = [Served()]
    _explorer[:] = [Explorer()]
    pin_threads(take(unpack(payload), "threads", int))
    stays()
    return pack({})


def load(payload: bytes) -> bytes:
    """{model_dir, component, key} -> {micros, us_per_mib}.

    Refuses a file whose key is not the one named, before it is read and after, and one that
    differs from the manifest.
    """
    from baguette.families.paris.files import text_length
    from baguette.families.paris.loading import load_expert
    from baguette.worker.held import Held

    start = time.perf_counter()
    values = unpack(payload)
    name, model_dir = take(values, "component", str), Path(take(values, "model_dir", str))
    key = take(values, "key", str)
    file = _announced(model_dir, name, key)
    expert = load_expert(model_dir, file.number, contexts=_contexts[0])
    _announced(model_dir, name, key)
    held = _held[name] = Held(expert, text_length(model_dir))
    _explorer[0].restart()
    micros = micros_since(start)
    us_per_mib = max(1, micros // file.size_mib)
    _known().put_component(held.kind, load_us_per_mib=us_per_mib)
    return pack({"micros": micros, "us_per_mib": us_per_mib})


def _announced(model_dir: Path, name: str, key: str) -> ComponentFile:
    """The file of this component as it lies now; WeightsError unless it is the one announced."""
    from baguette.families.paris.files import survey

    found, refused = survey(model_dir)
    for one in refused:
        if one.name == name:
            raise WeightsError(f"{one.file} is damaged ({one.why}): fetch it again")
    file = next((file for file in found if file.name == name), None)
    if file is None:
        raise WeightsError(f"{name} is not in {model_dir}: fetch it before it can be held here")
    if file.key != key:
        raise WeightsError(
            f"{name} on this disk is not the file that was announced; restart the node"
        )
    return file


def unload(payload: bytes) -> bytes:
    """{component} -> {}: forget it; forgetting what is not held is no error."""
    name = take(unpack(payload), "component", str)
    held = _held.pop(name, None)
    if held is not None:
        held.expert.close()
        _explorer[0].restart()
    return pack({})


def velocity(payload: bytes) -> bytes:
    """{component, canonical, rows, contexts} -> {velocities, micros} or {unknown: [hash]}.

    A row is {latent, t, network_t, context, null, scale}: latent a (C, S, S) f32 or f16 blob, t in
    [0, 1], the two contexts by hash. `contexts` are [{hash, tensor}] the caller was asked for.
    Velocities come back guided, (C, S, S) blobs of the same dtype, in row order. `canonical`
    computes one row at a time, so that its bytes do not depend on company.
    """
    return only(velocities([payload]))


def velocities(payloads: Sequence[bytes]) -> list[Answer]:
    """The same of several calls, which are one batch where that changes no promised bit."""
    from baguette.worker.velocities import answers

    return answers(payloads, _holding, _served[0])


def probe(payload: bytes) -> bytes:
    """{component, batches} -> {micros: {batch: least of some}, skipped} of the real component.

    What is known is not measured again; a batch that would take over a second is skipped.
    """
    from baguette.worker.held import at_once, measure

    values = unpack(payload)
    one = _holding(take(values, "component", str))
    batches = take(values, "batches", list)
    for batch in batches:
        if not isinstance(batch, int) or not 1 <= batch <= MAX_BATCH:
            raise BadInput(f"got batch {batch!r} but expected 1..{MAX_BATCH}")
        with _known().turn():
            at_once(measure(one, batch, _known()))
    known = _known().component(one.kind)
    times = known.get("call_us", {})
    micros = {str(batch): times[str(batch)] for batch in batches if str(batch) in times}
    return pack({"micros": micros, "skipped": known.get("skipped", [])})


def explore(_payload: bytes) -> bytes:
    """{} -> {done, speed}: measure one more short piece of what is not known yet.

    `speed` is {device, matmul_gflops, cpu_gflops, memory_mib_s, call_us, skipped, rows_equal} as
    far as known: call_us by batch; rows_equal the batches that change no bit of a row.
    """
    from baguette.worker.held import speed

    done = _explorer[0].step(_held, _known())
    return pack({"done": done, "speed": speed(_held, _known())})


def stats(_payload: bytes) -> bytes:
    """{} -> this process's figures, what it holds, what real calls took, and what is free.

    image_us: microseconds per image, the least of the last 32 canonical calls; 0 before.
    device_now: {name, memory_mib, used_mib, utilisation, temperature_c, power_w}, nil if unknown.
    """
    from baguette.machine import device_now
    from baguette.machine import machine as look

    seen, figures = look(), process_figures()
    gpu = seen.gpus.found[0] if seen.gpus.found else None
    served = _served[0].to_map() if _served else {"calls": 0, "image_us": 0}
    return pack(
        {
            **figures,
            **served,
            "device_now": device_now(seen, str(figures["device"])),
            "ram_free_mib": seen.ram_free_mib,
            "vram_free_mib": gpu.vram_free_mib if gpu else 0,
            "components": sorted(_held),
        }
    )


def _known() -> Kept:
    return _kept[0]


def _holding(name: str) -> Held:
    held = _held.get(name)
    if held is None:
        raise NotHeld(f"{name} is not loaded in this worker")
    return held


ENTRIES = {
    (__name__, function.__name__): function
    for function in (
        machine,
        inventory,
        warm,
        load,
        unload,
        velocity,
        probe,
        explore,
        stats,
        frames,
    )
}
TOGETHER = {(__name__, velocity.__name__): velocities}
