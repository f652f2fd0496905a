"""The trained parts as a Paris model directory: published layout, names, bf16, a manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from baguette import manifest
from baguette.families.paris.config import Defaults
from baguette.families.paris.files import ROUTER_FILE, expert_file
from baguette.shapes import caption, draw
from mini import data, experts, vae

DEFAULTS = Defaults(steps=30, guidance_scale=2.0, top_k=2, seed=999, n=1)
EXAMPLE_PROMPT = "a red circle on a blue background"
HINT = (
    f"paris-mini draws only shapes: a {', '.join(draw.SHAPES[:-1])} or {draw.SHAPES[-1]} "
    f"in {', '.join(draw.COLOURS[:-1])} or {draw.COLOURS[-1]}"
)


def package(folder: Path, output: Path) -> None:
    """Write everything a request needs from the work folder to `output`."""
    _json(output / "config.json", _root())
    _json(output / "model_index.json", _index())
    for number in range(data.CLUSTERS):
        _json(expert_file(output, number).with_name("config.json"), _expert(number))
        _weights(folder / f"expert_{number}.safetensors", expert_file(output, number))
    _json(output / "router" / "config.json", experts.router_config().to_json())
    _weights(folder / "router.safetensors", output / ROUTER_FILE)
    shutil.copytree(folder / "tokenizer", output / "tokenizer", dirs_exist_ok=True)
    for part in ("text_encoder", "vae"):
        (output / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / part / "config.json", output / part / "config.json")
        (weights,) = (folder / part).glob("*.safetensors")
        _weights(weights, output / part / weights.name)
    manifest.write(output)


def _root() -> dict[str, object]:
    own = {
        "name": "paris-mini",
        "defaults": DEFAULTS.to_json(),
        "example_prompt": EXAMPLE_PROMPT,
        "vocabulary": caption.VOCABULARY,
        "vocabulary_hint": HINT,
        "settings": {},
    }
    return {
        "num_experts": data.CLUSTERS,
        "image_size": experts.LATENT_SIZE,
        "num_channels": vae.LATENT_CHANNELS,
        "baguette": own,
    }


def _index() -> dict[str, object]:
    return {
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }


def _expert(number: int) -> dict[str, object]:
    return experts.expert_config(number).to_json()


def _json(path: Path, values: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _weights(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = load_file(source)
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(half, target, metadata={"format": "pt"})
    target.chmod(0o644)  # safetensors writes for the owner only
