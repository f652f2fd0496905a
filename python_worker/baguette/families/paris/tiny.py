"""Writes a tiny untrained Paris model of any shape, in the published layout: `python -m ... DIR`.

For tests and for trying a cluster without weights: everything runs, the pictures are noise. Nothing
here is used by a real model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from baguette.families.paris.config import Defaults, ExpertConfig, RouterConfig
from baguette.families.paris.expert import Expert
from baguette.families.paris.files import ROUTER_FILE, expert_file
from baguette.families.paris.layers import initialise
from baguette.families.paris.router import Router

TEXT_WIDTH = 16
TEXT_LENGTH = 12
HIDDEN = 16
LAYERS = 2


def build(
    model_dir: Path,
    *,
    name: str = "paris-tiny",
    num_experts: int = 3,
    channels: int = 3,
    latent_size: int = 6,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    heads: int = 2,
    seed: int = 0,
) -> Path:
    """Write a random model of `num_experts` experts on (channels, size, size) latents.

    `hidden`, `layers` and `heads` are the experts'; router, text encoder and VAE stay tiny.
    """
    torch.manual_seed(seed)
    write_json(model_dir / "config.json", _root(name, num_experts, channels, latent_size))
    for number in range(num_experts):
        config = ExpertConfig(
            expert_id=number, hidden_size=hidden, num_layers=layers, num_heads=heads,
            in_channels=channels, out_channels=channels, text_embed_dim=TEXT_WIDTH,
            image_size=latent_size,
        )  # fmt: skip
        write_json(model_dir / f"expert_{number}" / "config.json", config.to_json())
        _save(Expert(config), expert_file(model_dir, number))
    router = RouterConfig(
        num_clusters=num_experts, hidden_size=HIDDEN, num_layers=2, num_heads=2,
        in_channels=channels, image_size=latent_size,
    )  # fmt: skip
    write_json(model_dir / "router" / "config.json", router.to_json())
    _save(Router(router), model_dir / ROUTER_FILE)
    write_text(
        model_dir, hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=TEXT_LENGTH,
    )  # fmt: skip
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        sample_size=2 * latent_size, scaling_factor=1.0,
    ).save_pretrained(model_dir / "vae")  # fmt: skip
    return model_dir


def _root(name: str, num_experts: int, channels: int, latent_size: int) -> dict[str, object]:
    defaults = Defaults(steps=6, guidance_scale=2.0, top_k=2)
    own = {"name": name, "defaults": defaults.to_json(), "example_prompt": "a tiny test"}
    return {
        "num_experts": num_experts,
        "image_size": latent_size,
        "num_channels": channels,
        "baguette": own,
    }


def _save(module: nn.Module, path: Path) -> None:
    initialise(module)
    with torch.no_grad():
        for parameter in module.parameters():
            # Training starts from zeroed heads; a test wants an answer that depends on all.
            parameter.add_(0.1 * torch.randn_like(parameter))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in module.state_dict().items()}, path)


def write_text(model_dir: Path, **network: int) -> None:
    """A tokenizer of single bytes, and a random text encoder of these sizes for it."""
    byte_characters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    byte_characters += [chr(256 + i) for i in range(256 - len(byte_characters))]
    tokens = [*byte_characters, *(c + "</w>" for c in byte_characters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder = model_dir / "tokenizer"
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    write_json(folder / "special_tokens_map.json", special)
    length = {"model_max_length": network["max_position_embeddings"]}
    about = {"tokenizer_class": "CLIPTokenizer", **length, **special}
    write_json(folder / "tokenizer_config.json", about)
    config = CLIPTextConfig(
        vocab_size=len(tokens), bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1, **network,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(model_dir / "text_encoder")


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write one config."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a tiny untrained model for tests.",
        epilog="example: python -m baguette.families.paris.tiny build/tiny --experts 3",
    )
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--experts", type=int, default=3, help="how many experts (default 3)")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="an expert's width (default 16)")
    parser.add_argument("--layers", type=int, default=LAYERS, help="an expert's depth (default 2)")
    parser.add_argument("--heads", type=int, default=2, help="an expert's heads (default 2)")
    parser.add_argument("--latent-channels", type=int, default=3, help="(default 3)")
    parser.add_argument("--latent-size", type=int, default=6, help="height and width (default 6)")
    args = parser.parse_args()
    shape = {"channels": args.latent_channels, "latent_size": args.latent_size}
    network = {"hidden": args.hidden, "layers": args.layers, "heads": args.heads}
    print(build(args.model_dir, num_experts=args.experts, **shape, **network))


if __name__ == "__main__":
    main()
