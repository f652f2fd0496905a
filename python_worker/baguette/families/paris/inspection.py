"""What a Paris model directory holds, from headers alone: no tensor's bytes are read.

Called by `inspect` and by `weights` after a download. A damaged component is described, never
raised: the rest of the directory is still of interest. Hashes are `check`'s business.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baguette.errors import WeightsError
from baguette.families.paris.components import Component, components, expected_shapes
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.files import PARTS, is_flat, part_folder
from baguette.manifest import NAME, Manifest

PUBLISHED, FLAT = "published", "baguette"
WHOLE, MISSING, DAMAGED = "whole", "missing", "damaged"


@dataclass
class Part:
    """One component: its file and what its header tells. Scales are no tensors of their own.

    `faults` are titles with the names under them ("missing keys" and others), or one sentence under
    "damaged" where the file or its config cannot be read.
    """

    name: str
    state: str
    file: str
    layout: str
    bytes: int = 0
    parameters: int = 0
    tensors: int = 0
    scales: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Inspection:
    """A whole directory; `faults` are what concerns no single component."""

    directory: str
    name: str
    layouts: list[str]
    components: list[Part]
    # text_encoder, tokenizer, vae -> the folder, or None where there is none
    folders: dict[str, str | None]
    config: dict[str, Any]
    settings: dict[str, Any]
    manifest: str
    faults: list[str]

    @property
    def whole(self) -> bool:
        """Whether every component and part is there and fits."""
        return not self.faults and all(part.state == WHOLE for part in self.components)


def inspect(model_dir: Path) -> Inspection:
    """Look at every component; WeightsError only where no config says what they should be."""
    model = ModelConfig.read(model_dir)
    parts = [look_at(model_dir, component) for component in components(model_dir, model)]
    folders, faults = _folders(model_dir)
    told, wrong = _manifest(model_dir)
    return Inspection(
        directory=str(model_dir),
        name=model.name,
        layouts=sorted({part.layout for part in parts if part.state != MISSING}),
        components=parts,
        folders=folders,
        config={
            "num_experts": model.num_experts,
            "latent": list(model.latent_shape),
            "defaults": model.defaults.to_json(),
        },
        settings=model.settings.to_json(),
        manifest=told,
        faults=faults + wrong,
    )


def look_at(model_dir: Path, component: Component) -> Part:
    """One component, from its config and its file's header."""
    from baguette.weights import match, read_header

    path = component.path
    layout = FLAT if is_flat(path) else PUBLISHED
    part = Part(component.name, MISSING, path.relative_to(model_dir).as_posix(), layout)
    if not path.is_file():
        return part
    part.bytes = path.stat().st_size
    try:
        entries = read_header(path)
        part.dtypes = dict(Counter(entry.dtype for entry in entries))
        contents = match(entries, expected_shapes(component.config(model_dir)))
    except WeightsError as error:
        part.state, part.faults = DAMAGED, {DAMAGED: [str(error)]}
        return part
    part.tensors, part.scales = len(contents.entries), len(contents.scales)
    part.parameters = sum(entry.numel for entry in contents.entries.values())
    part.faults = {title: sorted(names) for title, names in contents.faults.items()}
    part.state = DAMAGED if part.faults else WHOLE
    return part


def _folders(model_dir: Path) -> tuple[dict[str, str | None], list[str]]:
    folders: dict[str, str | None] = {}
    faults = []
    for part in PARTS:
        try:
            folders[part] = str(part_folder(model_dir, part))
        except WeightsError as error:
            folders[part] = None
            faults.append(str(error))
    # One sentence may be about several parts.
    return folders, list(dict.fromkeys(faults))


def _manifest(model_dir: Path) -> tuple[str, list[str]]:
    try:
        manifest = Manifest.read(model_dir)
    except WeightsError as error:
        return DAMAGED, [str(error)]
    if manifest.lines is None:
        return "none", []
    faults = manifest.size_faults()
    told = f"{len(manifest.lines)} files listed, {'sizes differ' if faults else 'sizes agree'}"
    return told, [f"{NAME}: {fault.file}: {fault.why}" for fault in faults]
