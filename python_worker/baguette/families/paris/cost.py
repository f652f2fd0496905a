"""What a Paris model costs, counted from its configs: FLOPs, bytes of weights, bytes kept.

Called by the benchmark, which holds what it measured against this, and by its tests. Counted as
torch counts (torch.utils.flop_counter): two FLOPs per multiply-add of the matrix products,
attentions and convolutions; norms, activations and sums are left out. Pure, and needs no torch.

Symbols: T patch tokens, L text tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baguette.errors import WeightsError
from baguette.families.paris.config import ExpertConfig, RouterConfig, read_json
from baguette.families.paris.files import expert_config, part_folder, router_config

FLOPS_PER_MAC = 2
FREQUENCIES = 256  # of the time embedding: layers.TIME_FREQUENCIES
FLOAT_BYTES = {"fp32": 4, "bf16": 2, "int8": 2}  # of what is not a matrix of an expert
MATRIX_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
SCALE_BYTES = 4

# The published encoder and decoder, as their config.json files have them.
PUBLISHED_TEXT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77,
}  # fmt: skip
PUBLISHED_VAE = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "out_channels": 3, "norm_num_groups": 32, "sample_size": 256, "scaling_factor": 0.18215,
}  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """FLOPs of each part of a model, and what an expert's weights and contexts hold.

    `expert` is one row, one guidance branch of one image, through the whole network; `blocks` is
    its transformer blocks alone, which is what is published as "the" cost of an expert, and
    `router_blocks` likewise. `keys_values` is the part of `expert` that depends on the prompt only,
    `modulation` the part that depends on the time only.
    """

    expert: int
    blocks: int
    keys_values: int
    modulation: int
    router: int
    router_blocks: int
    router_modulation: int
    text: int
    decoder: int
    matrices: int  # an expert's parameters that may be kept small
    others: int  # and all its others
    rows: int  # output rows of those matrices: a scale each in int8
    context: int  # numbers kept per (expert, prompt)

    def image(self, steps: int, top_k: int) -> int:
        """A guided picture, everything computed at every step: how the published figure counts."""
        return steps * (2 * top_k * self.blocks + self.router_blocks)

    def kept(self, steps: int, top_k: int) -> int:
        """A guided picture as it is computed here, and decoded.

        Prompts and times, which a batch shares, are left out.
        """
        rows = 2 * top_k * (self.expert - self.keys_values - self.modulation)
        return steps * (rows + self.router - self.router_modulation) + self.decoder

    def expert_bytes(self, precision: str) -> int:
        """An expert's weights in memory; a call reads each of them once, whatever its rows."""
        scales = SCALE_BYTES * self.rows if precision == "int8" else 0
        return (
            MATRIX_BYTES[precision] * self.matrices + FLOAT_BYTES[precision] * self.others + scales
        )

    def context_bytes(self, precision: str) -> int:
        """Keys and values of one prompt in one expert."""
        return FLOAT_BYTES[precision] * self.context


def published() -> Costs:
    """Paris as published: eight DiT-XL/2 experts, a DiT-B/2 router, CLIP ViT-L/14, the SD VAE."""
    return of(ExpertConfig(), RouterConfig(), PUBLISHED_TEXT, PUBLISHED_VAE)


def of_model(model_dir: Path) -> Costs:
    """The model in this directory; reads its config.json files only.

    WeightsError where one is missing or does not tell what is counted.
    """
    text, vae = (
        read_json(part_folder(model_dir, p) / "config.json") for p in ("text_encoder", "vae")
    )
    try:
        return of(expert_config(model_dir, 0), router_config(model_dir), text, vae)
    except (KeyError, TypeError, IndexError) as error:
        raise WeightsError(
            f"{model_dir}: the config.json of text_encoder or vae does not tell its sizes "
            f"({type(error).__name__}: {error}); fetch it again"
        ) from None


def of(
    expert: ExpertConfig, router: RouterConfig, text: Mapping[str, Any], vae: Mapping[str, Any]
) -> Costs:
    """From the four configs."""
    d, depth, length = expert.hidden_size, expert.num_layers, text["max_position_embeddings"]
    width = text["hidden_size"]
    tokens = (router.image_size // router.patch_size) ** 2 + 1
    keys_values = depth * 2 * d * d * length
    blocks = depth * _block(expert.tokens, d, expert.mlp_ratio) + keys_values
    blocks += depth * (2 * d * d * expert.tokens + 2 * expert.tokens * length * d)
    patch = expert.patch_size**2
    ends = expert.tokens * patch * d * (expert.in_channels + expert.out_channels)
    projected = expert.text_embed_dim * d * length
    modulation = _time(d) + 6 * d * d
    wide = router.hidden_size
    routing = router.num_layers * _block(tokens, wide, router.mlp_ratio)
    modulated = _time(wide) + router.num_layers * 6 * wide * wide
    head = wide * wide + wide * router.num_clusters
    embed = (tokens - 1) * router.patch_size**2 * router.in_channels * wide
    words = _block(length, width, text["intermediate_size"] / width)
    matrices, rows = _matrices(expert)
    return Costs(
        expert=FLOPS_PER_MAC * (blocks + ends + projected + modulation),
        blocks=FLOPS_PER_MAC * blocks,
        keys_values=FLOPS_PER_MAC * (keys_values + projected),
        modulation=FLOPS_PER_MAC * modulation,
        router=FLOPS_PER_MAC * (routing + modulated + head + embed),
        router_blocks=FLOPS_PER_MAC * routing,
        router_modulation=FLOPS_PER_MAC * modulated,
        text=FLOPS_PER_MAC * text["num_hidden_layers"] * words,
        decoder=FLOPS_PER_MAC * _decoder(vae, expert.image_size),
        matrices=matrices,
        others=_others(expert),
        rows=rows,
        context=2 * depth * length * d,
    )


def _block(tokens: int, d: int, ratio: float) -> int:
    """Multiply-adds of self-attention (q, k, v, out, and two products) and the MLP."""
    return tokens * d * (4 * d + 2 * int(d * ratio)) + 2 * tokens * tokens * d


def _time(d: int) -> int:
    return FREQUENCIES * d + d * d


def _matrices(config: ExpertConfig) -> tuple[int, int]:
    """Numbers in an expert's matrices, and their output rows."""
    d, inner = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    final = config.patch_size**2 * config.out_channels
    layer = 2 * (3 * d * d + d * d) + 2 * d * inner
    outside = FREQUENCIES * d + d * d + config.text_embed_dim * d + 6 * d * d + final * d
    rows = config.num_layers * (2 * 4 * d + inner + d) + 3 * d + 6 * d + final
    return config.num_layers * layer + outside, rows


def _others(config: ExpertConfig) -> int:
    """Biases, tables, the patch embedding and the positions: whatever is no matrix of a layer."""
    d = config.hidden_size
    _, biases = _matrices(config)
    tables = 6 * d * config.num_layers + 2 * d
    patch = d * (config.patch_size**2 * config.in_channels + 1)
    return biases + tables + patch + config.tokens * d


def _decoder(vae: Mapping[str, Any], size: int) -> int:
    """Multiply-adds of AutoencoderKL's decoder for one latent of this height and width."""
    channels = list(reversed(vae["block_out_channels"]))
    latent, top = vae["latent_channels"], channels[0]
    area = size * size
    total = area * (latent * latent + 9 * latent * top)  # post_quant_conv and conv_in
    total += 2 * _residual(area, top, top) + 4 * area * top * top + 2 * area * area * top
    for place, (before, after) in enumerate(zip([top, *channels], channels, strict=False)):
        total += _residual(area, before, after)
        total += vae["layers_per_block"] * _residual(area, after, after)
        if place < len(channels) - 1:
            area *= 4
            total += 9 * area * after * after
    return total + 9 * area * channels[-1] * vae["out_channels"]


def _residual(area: int, before: int, after: int) -> int:
    shortcut = before * after if before != after else 0
    return area * (9 * before * after + 9 * after * after + shortcut)
