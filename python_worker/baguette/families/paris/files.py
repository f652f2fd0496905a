"""What lies in a Paris model directory: paths, the placeable components and their keys.

Called by the loaders and by the port worker. Imports no torch, so that a node can tell the cluster
what is on its disk while torch is still being imported.

A component's key is (family, part, content hash, compute dtype); one picture never mixes keys.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from baguette.errors import WeightsError
from baguette.families.paris.config import ModelConfig, Settings, read_json
from baguette.manifest import Fault, Manifest, file_digests

FAMILY = "paris"
COMPUTE_DTYPE = "float32"
ROUTER_FILE = Path("router/pytorch_model.safetensors")
_ROUTER_ALIASES = (ROUTER_FILE, Path("router/diffusion_pytorch_model.safetensors"))
_MIB = 1 << 20
_TOKENS, _MAX_TOKENS = 77, 1024
# Files are bf16 and computed in fp32 on a CPU, so memory is about twice the file.
_MEMORY_PER_FILE_BYTE = 2


@dataclass(frozen=True)
class ComponentFile:
    """One placeable component on this disk: its name, size in memory (MiB, rounded up) and key."""

    name: str
    number: int
    size_mib: int
    key: str


def expert_file(model_dir: Path, number: int) -> Path:
    """Where expert `number`'s tensors lie."""
    return model_dir / f"expert_{number}" / "diffusion_pytorch_model.safetensors"


def router_file(model_dir: Path) -> Path:
    """Where the router's tensors lie, under either published name."""
    for alias in _ROUTER_ALIASES:
        if (model_dir / alias).is_file():
            return model_dir / alias
    return model_dir / ROUTER_FILE


def component_name(config: ModelConfig, number: int) -> str:
    """The cluster-wide name of an expert, e.g. "paris-mini/expert-3"."""
    return f"{config.name}/expert-{number}"


def component_key(part: str, *paths: Path, settings: Settings | None = None) -> str:
    """family:part:content hash:dtype; of the files, and of the settings the part computes with.

    A file is hashed again only when its time or size changed.
    """
    try:
        content = file_digests(paths)[0]
    except FileNotFoundError as error:
        raise WeightsError(f"{error.filename} is missing: fetch the weights again") from None
    if settings is not None:
        in_force = json.dumps(settings.to_json(), sort_keys=True)
        content = hashlib.sha256(f"{content} {in_force}".encode()).hexdigest()
    return f"{FAMILY}:{part}:{content}:{COMPUTE_DTYPE}"


def expert_files(model_dir: Path, number: int) -> tuple[Path, ...]:
    """All that expert `number` is made of: heads and the like are not in its tensors."""
    path = expert_file(model_dir, number)
    return (path, path.with_name("config.json"))


def router_files(model_dir: Path) -> tuple[Path, ...]:
    """All that the router is made of."""
    path = router_file(model_dir)
    return (path, path.with_name("config.json"))


def part_files(model_dir: Path, *folders: str) -> tuple[Path, ...]:
    """Every file of these folders, which another library reads; WeightsError without one."""
    for folder in folders:
        if not (model_dir / folder).is_dir():
            raise WeightsError(f"{model_dir / folder} is missing: fetch the weights again")
    return tuple(p for f in folders for p in sorted((model_dir / f).iterdir()) if p.is_file())


def expert_key(model_dir: Path, number: int, settings: Settings) -> str:
    """The key of expert `number`."""
    return component_key(f"expert-{number}", *expert_files(model_dir, number), settings=settings)


def router_key(model_dir: Path, settings: Settings) -> str:
    """The key of the router, as expert_key."""
    return component_key("router", *router_files(model_dir), settings=settings)


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
        size_mib = max(1, -(-_MEMORY_PER_FILE_BYTE * paths[0].stat().st_size // _MIB))
        key = expert_key(model_dir, number, config.settings)
        found.append(ComponentFile(name, number, size_mib, key))
    return found, refused


def inventory(model_dir: Path) -> list[ComponentFile]:
    """The experts that may be loaded from `model_dir`."""
    return survey(model_dir)[0]


def requester_faults(model_dir: Path) -> list[Fault]:
    """What differs from the manifest among the parts that a requesting node computes with."""
    manifest = Manifest.read(model_dir)
    if manifest.lines is None:
        return []
    folders = ("text_encoder", "tokenizer", "vae")
    return [
        *manifest.faults(router_files(model_dir), ("router",)),
        *manifest.faults(part_files(model_dir, *folders[:2]), folders[:2]),
        *manifest.faults(part_files(model_dir, *folders[2:]), folders[2:]),
    ]


def text_length(model_dir: Path) -> int:
    """Tokens of a text context, from the text encoder's config; the published 77 without it."""
    path = model_dir / "text_encoder" / "config.json"
    length = read_json(path).get("max_position_embeddings") if path.is_file() else None
    return length if isinstance(length, int) and 0 < length <= _MAX_TOKENS else _TOKENS
