"""The autoencoder: 64x64 pictures to 8x8x8 latents of unit deviation and back.

It is the first bottleneck: one that is too small or too short takes white for yellow, and nothing
after it can repair that. So the stage ends in a gate: the judge must be right about the round trip.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from baguette.shapes import draw
from baguette.shapes.judge import judge
from mini.loop import Plan, Stage

BATCH = 32
KL_WEIGHT = 1e-4
LATENT_CHANNELS = 8
GATE = 0.995
GATE_PICTURES = 1120
PLAN = Plan(steps=3000, learning_rate=2e-3, seed=1, ema=0.995, weight_decay=0.0)


def build() -> AutoencoderKL:
    """Few channels where the pictures are large: full resolution is nearly all of the cost."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 24, 48, 64),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=draw.IMAGE_SIZE,
    )


def loss_of(vae: AutoencoderKL, step: int, generator: torch.Generator) -> Tensor:
    """L1 + MSE, heavier on the shape and most on its edge, and a small KL term."""
    rng = np.random.default_rng((PLAN.seed, step))
    scene = draw.random_scene(BATCH, rng)
    alpha = draw.silhouettes(scene)
    x = torch.from_numpy(draw.paint(alpha, scene.colour, scene.background)) * 2 - 1
    x = x.contiguous(memory_format=torch.channels_last)  # (B, 3, 64, 64) in -1..1
    a = torch.from_numpy(alpha)[:, None]
    weight = 1 + 2 * a + 12 * a * (1 - a)
    posterior = vae.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    y = vae.decode(posterior.mean + posterior.std * noise).sample
    error = y - x
    picture = (weight * (error.abs() + error.square())).mean() / weight.mean()
    # posterior.kl() sums over a latent; the mean per element keeps the weight free of its size
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return picture + KL_WEIGHT * kl


def train(folder: Path) -> float:
    """Train, standardise the latents, pass the gate, save as diffusers does; seconds spent."""
    torch.manual_seed(PLAN.seed)
    vae = build().to(memory_format=torch.channels_last)
    stage = Stage("vae", folder, vae, PLAN)
    vae.load_state_dict(stage.run(lambda step, g: loss_of(vae, step, g)))
    vae.eval()
    vae.register_to_config(scaling_factor=1.0)
    _standardise(vae, encode(vae, draw.random_scene(2240, np.random.default_rng(11))))
    _gate(vae)
    vae.to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
    return stage.seconds


@torch.no_grad()
def _standardise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Fold mean 0 and deviation 1 of every channel into the 1x1 convolutions around the latent.

    The published layout knows one scaling factor for all channels; without this the channels differ
    threefold in deviation, and at a given time some are noise already while others are still plain.
    """
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))  # (C,)
    channels = LATENT_CHANNELS
    into, out = vae.quant_conv, vae.post_quant_conv  # to (mean, log variance); from the latent
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std[None, :, None, None]


def _gate(vae: AutoencoderKL) -> None:
    scene = draw.random_scene(GATE_PICTURES, np.random.default_rng(12))
    pictures = decode(vae, encode(vae, scene))
    asked = zip(scene.shape, scene.colour, scene.background, strict=True)
    right = np.mean([judge(p).combination == a for p, a in zip(pictures, asked, strict=True)])
    print(f"vae: the judge is right about {right:.2%} of {GATE_PICTURES} round trips")
    if right < GATE:
        raise SystemExit(f"vae: {right:.2%} is under the gate of {GATE:.1%}; train longer")


def load(folder: Path) -> AutoencoderKL:
    """The trained autoencoder, in fp32."""
    if not (folder / "vae").is_dir():
        raise FileNotFoundError(folder / "vae")
    return AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True).eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, scene: draw.Scene) -> Tensor:
    """Scaled latents (N, 8, 8, 8): the mean of the posterior, times the scaling factor."""
    parts = []
    for start in range(0, len(scene), 256):
        x = torch.from_numpy(draw.draw(scene.take(slice(start, start + 256)))) * 2 - 1
        parts.append(vae.encode(x).latent_dist.mean)
    return torch.cat(parts).contiguous() * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> draw.Floats:
    """Scaled latents to pictures 0..1: (N, 3, 64, 64)."""
    parts = []
    for part in latents.split(256):
        y = vae.decode(part / vae.config.scaling_factor).sample
        parts.append((y / 2 + 0.5).clamp(0, 1))
    return torch.cat(parts).numpy()
