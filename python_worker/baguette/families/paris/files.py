"""What lies in a Paris model directory: paths, the placeable components and their keys.

Called by the loaders and by the port worker. Imports no torch, so that a node can tell the cluster
what is on its disk while torch is still being imported.

A component's key is (family, part, content hash, compute dtype); one picture never mixes keys.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from baguette.errors import WeightsError
from baguette.families.paris.config import ModelConfig, Settings

FAMILY = "paris"
COMPUTE_DTYPE = "float32"
ROUTER_FILE = Path("router/pytorch_model.safetensors")
_ROUTER_ALIASES = (ROUTER_FILE, Path("router/diffusion_pytorch_model.safetensors"))
_CHUNK = 1 << 20
_MIB = 1 << 20
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


def content_hash(*paths: Path) -> str:
    """SHA-256 over the files' bytes, in the order given, as 64 hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


@functools.lru_cache(maxsize=64)
def _hash_once(paths: tuple[Path, ...], _stamps: tuple[tuple[int, int], ...]) -> str:
    return content_hash(*paths)


def component_key(part: str, *paths: Path, settings: Settings | None = None) -> str:
    """family:part:content hash:dtype; of the files, and of the settings the part computes with.

    A file is hashed again only when its time or size changed.
    """
    try:
        stats = [path.stat() for path in paths]
    except FileNotFoundError as error:
        raise WeightsError(f"{error.filename} is missing: fetch the weights again") from None
    stamps = tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
    content = _hash_once(paths, stamps)
    if settings is not None:
        in_force = json.dumps(settings.to_json(), sort_keys=True)
        content = hashlib.sha256(f"{content} {in_force}".encode()).hexdigest()
    return f"{FAMILY}:{part}:{content}:{COMPUTE_DTYPE}"


def expert_key(model_dir: Path, number: int, settings: Settings) -> str:
    """The key of expert `number`: heads and the like are in its config, not in its tensors."""
    path = expert_file(model_dir, number)
    return component_key(f"expert-{number}", path, path.with_name("config.json"), settings=settings)


def router_key(model_dir: Path, settings: Settings) -> str:
    """The key of the router, as expert_key."""
    path = router_file(model_dir)
    return component_key("router", path, path.with_name("config.json"), settings=settings)


def inventory(model_dir: Path) -> list[ComponentFile]:
    """The experts whose files lie in `model_dir`; a directory may hold only some of them."""
    config = ModelConfig.read(model_dir)
    found = []
    for number in range(config.num_experts):
        path = expert_file(model_dir, number)
        if path.is_file():
            size_mib = max(1, -(-_MEMORY_PER_FILE_BYTE * path.stat().st_size // _MIB))
            key = expert_key(model_dir, number, config.settings)
            found.append(ComponentFile(component_name(config, number), number, size_mib, key))
    return found
