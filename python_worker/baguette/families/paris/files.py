"""What lies in a Paris model directory: paths, the placeable components and their keys.

Called by the loaders, the port worker and the commands. Imports no torch, so that a node can tell
the cluster what is on its disk while torch is still being imported. Two layouts are known, the
published one and Baguette's own (docs/internals/weights.md); a component is looked for in both.

A component's key is (family, part, content hash, compute dtype); one picture never mixes keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from baguette.aliases import EXPERT_FILES, FLAT_EXPERT, FLAT_ROUTER, ROUTER_FILES
from baguette.errors import WeightsError
from baguette.families.paris.config import (
    PUBLISHED_NAME,
    ExpertConfig,
    ModelConfig,
    RouterConfig,
    Settings,
    read_json,
)
from baguette.manifest import Fault, Manifest, file_digests

FAMILY = "paris"
COMPUTE_DTYPE = "float32"
ROUTER_FILE = Path(ROUTER_FILES[0])
PARTS = ("text_encoder", "tokenizer", "vae")
_FLAT = re.compile(r"expert_\d+|router")
_MIB = 1 << 20
_TOKENS, _MAX_TOKENS = 77, 1024
_NUMBER_BYTES = 4  # a cluster's workers keep and compute in fp32
_MAX_DECODER_BLOCKS = 16
_MAX_HEADER = 100_000_000  # safetensors' own bound


@dataclass(frozen=True)
class ComponentFile:
    """One placeable component on this disk: its name, size in memory (MiB, rounded up) and key."""

    name: str
    number: int
    size_mib: int
    key: str


def expert_file(model_dir: Path, number: int) -> Path:
    """Where expert `number`'s tensors lie, or would in the layout of what else is there."""
    return _first(model_dir, [name.format(k=number) for name in EXPERT_FILES])


def router_file(model_dir: Path) -> Path:
    """Where the router's tensors lie, or would, as `expert_file`."""
    return _first(model_dir, ROUTER_FILES)


def _first(model_dir: Path, names: Sequence[str]) -> Path:
    paths = [model_dir / name for name in names]
    would = paths[-1] if _flat_model(model_dir) else paths[0]
    return next((path for path in paths if path.is_file()), would)


def is_flat(path: Path) -> bool:
    """Whether a component's tensors lie as in Baguette's own layout: no config.json of their own.

    `path` is what `expert_file` or `router_file` gave, or a checkpoint in their place.
    """
    return _FLAT.fullmatch(path.stem) is not None


def expert_config(model_dir: Path, number: int, tensors: Path | None = None) -> ExpertConfig:
    """The sizes of expert `number`, of its own config.json or of the root's `expert_config`.

    `tensors` is the file it lies in where that is not `expert_file`'s. Raises WeightsError for a
    config that is damaged, or that disagrees with the root's about the latent's shape.
    """
    model = ModelConfig.read(model_dir)
    path = tensors or expert_file(model_dir, number)
    values, where = _component_values(model_dir, path, model.expert_config)
    # The files of Baguette's layout do not say their number, but their name does.
    more = {"expert_id": number} if is_flat(path) else {}
    if is_flat(path):
        more["in_channels"] = more["out_channels"] = model.num_channels
    config = ExpertConfig.from_json(values, where, image_size=model.image_size, **more)
    if config.in_channels != model.num_channels or config.image_size != model.image_size:
        raise WeightsError(f"{where} disagrees with the root config about the latent's shape")
    return config


def router_config(model_dir: Path, tensors: Path | None = None) -> RouterConfig:
    """The sizes of the router, as `expert_config`; WeightsError where its experts are others."""
    model = ModelConfig.read(model_dir)
    path = tensors or router_file(model_dir)
    values, where = _component_values(model_dir, path, model.router_config)
    more = {}
    if is_flat(path):
        more = {"num_clusters": model.num_experts, "in_channels": model.num_channels}
    config = RouterConfig.from_json(values, where, image_size=model.image_size, **more)
    if config.num_clusters != model.num_experts:
        raise WeightsError(
            f"{where}: got num_clusters={config.num_clusters} but expected {model.num_experts}"
        )
    return config


def _component_values(
    model_dir: Path, path: Path, flat: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """What a component's config says, and where."""
    where = model_dir / "config.json" if is_flat(path) else path.with_name("config.json")
    return (flat if is_flat(path) else read_json(where)), str(where)


def part_folder(model_dir: Path, part: str) -> Path:
    """Where `part` (text_encoder, tokenizer or vae) lies.

    Baguette's own layout is published without them, so beside such a directory the published one
    is looked into. Raises WeightsError that says which folder to put where.
    """
    own = model_dir / part
    if own.is_dir():
        return own
    if not _flat_model(model_dir):
        raise WeightsError(f"{own} is missing: fetch the weights again")
    beside = model_dir.resolve().parent / PUBLISHED_NAME
    fits = _same_latent(model_dir, beside)
    if (beside / part).is_dir() and fits:
        return beside / part
    lacking = [
        p for p in PARTS if not ((model_dir / p).is_dir() or (fits and (beside / p).is_dir()))
    ]
    raise WeightsError(
        f"{model_dir} holds no {', '.join(lacking)} and {beside} has none for it: put these "
        "folders of the published model into either (`make weights` fetches them)"
    )


def picture_side(model_dir: Path, config: ModelConfig) -> int | None:
    """A picture's width and height in pixels; None where no decoder lies in this directory."""
    try:
        path = part_folder(model_dir, "vae") / "config.json"
    except WeightsError:
        return None
    blocks = read_json(path).get("block_out_channels")
    if not isinstance(blocks, list) or not 0 < len(blocks) <= _MAX_DECODER_BLOCKS:
        raise WeightsError(f"{path}: block_out_channels is not a list of sizes")
    # Every block but the last doubles width and height.
    return config.image_size << (len(blocks) - 1)


def _flat_model(model_dir: Path) -> bool:
    found = [*model_dir.glob(FLAT_EXPERT.format(k="*")), model_dir / FLAT_ROUTER]
    return any(path.is_file() for path in found)


def _same_latent(model_dir: Path, other: Path) -> bool:
    if not (other / "config.json").is_file():
        return True
    return ModelConfig.read(model_dir).latent_shape == ModelConfig.read(other).latent_shape


def component_name(config: ModelConfig, number: int) -> str:
    """The cluster-wide name of an expert, e.g. "paris-mini/expert-3"."""
    return f"{config.name}/expert-{number}"


def component_key(
    part: str,
    *paths: Path,
    settings: Settings | None = None,
    config: ExpertConfig | RouterConfig | None = None,
) -> str:
    """family:part:content hash:dtype; of the files, and of the settings the part computes with.

    `config` are the part's sizes where no file of `paths` tells them.
    A file is hashed again only when its time or size changed.
    """
    try:
        content = file_digests(paths)[0]
    except FileNotFoundError as error:
        raise WeightsError(f"{error.filename} is missing: fetch the weights again") from None
    for record in (settings, config):
        if record is not None:
            in_force = json.dumps(record.to_json(), sort_keys=True)
            content = hashlib.sha256(f"{content} {in_force}".encode()).hexdigest()
    return f"{FAMILY}:{part}:{content}:{COMPUTE_DTYPE}"


def expert_files(model_dir: Path, number: int) -> tuple[Path, ...]:
    """All files of expert `number`: heads and the like are not in its tensors."""
    return _with_config(expert_file(model_dir, number))


def router_files(model_dir: Path) -> tuple[Path, ...]:
    """All files of the router."""
    return _with_config(router_file(model_dir))


def _with_config(path: Path) -> tuple[Path, ...]:
    return (path,) if is_flat(path) else (path, path.with_name("config.json"))


def part_files(model_dir: Path, *parts: str) -> tuple[Path, ...]:
    """Every file of these parts, which another library reads; WeightsError without one."""
    folders = [part_folder(model_dir, part) for part in parts]
    return tuple(path for f in folders for path in sorted(f.iterdir()) if path.is_file())


def expert_key(model_dir: Path, number: int, settings: Settings) -> str:
    """The key of expert `number`."""
    paths = expert_files(model_dir, number)
    config = expert_config(model_dir, number) if is_flat(paths[0]) else None
    return component_key(f"expert-{number}", *paths, settings=settings, config=config)


def router_key(model_dir: Path, settings: Settings) -> str:
    """The key of the router, as expert_key."""
    paths = router_files(model_dir)
    config = router_config(model_dir) if is_flat(paths[0]) else None
    return component_key("router", *paths, settings=settings, config=config)


@dataclass(frozen=True)
class Refused:
    """A component whose file is not what the manifest says: it is never loaded."""

    name: str
    file: str
    why: str


def survey(model_dir: Path) -> tuple[list[ComponentFile], list[Refused]]:
    """The experts whose files lie in `model_dir`, and those among them that are refused.

    A directory may hold only some experts.
    """
    config = ModelConfig.read(model_dir)
    manifest = Manifest.read(model_dir)
    found, refused = [], []
    for number in range(config.num_experts):
        paths = expert_files(model_dir, number)
        if not paths[0].is_file():
            continue
        name = component_name(config, number)
        faults = manifest.faults(paths)
        if faults:
            refused += [Refused(name, fault.file, fault.why) for fault in faults]
            continue
        size_mib = max(1, -(-_memory_bytes(paths[0]) // _MIB))
        key = expert_key(model_dir, number, config.settings)
        found.append(ComponentFile(name, number, size_mib, key))
    return found, refused


def _memory_bytes(path: Path) -> int:
    """What a worker keeps of a safetensors file, by its header; INT8 takes four times its file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length if length <= _MAX_HEADER else 0))
        shapes = [about["shape"] for name, about in header.items() if name != "__metadata__"]
        return _NUMBER_BYTES * sum(prod(shape) for shape in shapes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return path.stat().st_size  # damaged: it is refused when it is to be loaded


def refuse_damaged(model_dir: Path, faults: Sequence[Fault | Refused]) -> None:
    """WeightsError naming the first of these files, when there are any."""
    if faults:
        named = "; ".join(f"{fault.file}: {fault.why}" for fault in faults[:8])
        raise WeightsError(f"{model_dir} is damaged ({named}): fetch it again")


def inventory(model_dir: Path) -> list[ComponentFile]:
    """The experts that may be loaded from `model_dir`."""
    return survey(model_dir)[0]


def requester_faults(model_dir: Path) -> list[Fault]:
    """What differs from the manifest among the parts that a requesting node computes with."""
    manifest = Manifest.read(model_dir)
    faults = []
    if manifest.lines is not None:
        faults += manifest.faults(router_files(model_dir), ("router",))
    for part in PARTS:
        # A part of the directory beside stands in that one's manifest.
        manifest = Manifest.read(part_folder(model_dir, part).parent)
        if manifest.lines is not None:
            faults += manifest.faults(part_files(model_dir, part), (part,))
    return faults


def text_length(model_dir: Path) -> int:
    """Tokens of a text context, from the text encoder's config; the published 77 without it."""
    try:
        path = part_folder(model_dir, "text_encoder") / "config.json"
    except WeightsError:  # a node that only holds experts
        return _TOKENS
    length = read_json(path).get("max_position_embeddings") if path.is_file() else None
    return length if isinstance(length, int) and 0 < length <= _MAX_TOKENS else _TOKENS
