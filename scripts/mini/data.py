"""The training set: scenes drawn, encoded once, and cut into clusters by their layout alone.

Also the batches every later stage draws, and the coupling of noise and cluster (README of the
weights: "Noise chooses the layout").
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from baguette.shapes import draw, layout
from mini import vae, words

ROUNDS = 300  # every combination this often
SEED = 20
CLUSTERS = 8
CAPTION_DROPOUT = 0.1
SHAPE_ONLY = 0.05
PARTS = 60
K_MEANS_POINTS = 20_000


@dataclass(frozen=True)
class Batch:
    """One training step's questions and answers; B pictures."""

    x_t: Tensor  # (B, C, S, S)
    t: Tensor  # (B,) in 0..1
    network_t: Tensor  # (B,)
    velocity: Tensor  # (B, C, S, S), eps - x0
    caption: Tensor  # (B,) row of words.caption_ids
    cluster: Tensor  # (B,)


class Scenes:
    """The encoded scenes: latents (N, C, S, S), combination (N,), cluster (N,)."""

    def __init__(self, folder: Path) -> None:
        tensors = load_file(folder / "data.safetensors")
        self.latents, self.combination = tensors["latents"], tensors["combination"]
        self.cluster = tensors["cluster"]
        self.order = self.cluster.argsort(stable=True)
        self.sizes = torch.bincount(self.cluster, minlength=CLUSTERS)
        self.starts = self.sizes.cumsum(0) - self.sizes

    def batch(self, size: int, generator: torch.Generator, only: int | None = None) -> Batch:
        """`size` noised latents, the clusters in equal parts, or of the cluster `only`."""
        if only is None:
            cluster = torch.randint(CLUSTERS, (size,), generator=generator)
        else:
            cluster = torch.full((size,), only)
        chance = torch.rand(size, generator=generator)
        index = self.order[self.starts[cluster] + (chance * self.sizes[cluster]).long()]
        x0 = self.latents[index]
        eps = coupled_noise(torch.randn(x0.shape, generator=generator), cluster)
        # logit-normal: Esser et al. 2024 (arXiv 2403.03206), leaning to noise, where layout forms
        t = torch.sigmoid(0.3 + 1.2 * torch.randn(size, generator=generator))
        at = t[:, None, None, None]
        x_t = (1 - at) * x0 + at * eps
        captions = self._captions(index, generator)
        return Batch(x_t, t, 1000 * t, eps - x0, captions, cluster)

    def _captions(self, index: Tensor, generator: torch.Generator) -> Tensor:
        phrasing = torch.randint(words.FORMS - 1, index.shape, generator=generator)
        chance = torch.rand(index.shape, generator=generator)
        phrasing[chance < SHAPE_ONLY] = words.FORMS - 1
        rows = self.combination[index] * words.FORMS + phrasing
        rows[chance > 1 - CAPTION_DROPOUT] = len(draw.COMBINATIONS) * words.FORMS
        return rows


def coupled_noise(eps: Tensor, cluster: Tensor) -> Tensor:
    """Noise (B, C, S, S) given that its largest channel mean is the cluster's.

    Swapping the means of two channels keeps the distribution, so over equal clusters the noise is
    exactly standard normal, and at t = 1 it tells the router which cluster the picture comes from.
    """
    if eps.shape[1] < CLUSTERS:
        raise ValueError(f"{CLUSTERS} clusters need as many latent channels, got {eps.shape[1]}")
    means = eps.mean((2, 3))[:, :CLUSTERS]  # (B, CLUSTERS)
    top, row = means.argmax(1), torch.arange(len(eps))
    gap = (means[row, top] - means[row, cluster])[:, None, None]
    eps = eps.clone()
    eps[row, cluster] += gap
    eps[row, top] -= gap
    return eps


def make(folder: Path) -> float:
    """Draw, encode, cluster, check, and write data.safetensors; seconds spent."""
    begun = time.monotonic()
    (folder / "parts").mkdir(exist_ok=True)
    autoencoder = vae.load(folder)
    parts = [_part(folder, autoencoder, i) for i in tqdm(range(PARTS), desc="data")]
    tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    points = layout.standardised(tensors.pop("layout").numpy())
    centres = layout.kmeans(points[:K_MEANS_POINTS], CLUSTERS, np.random.default_rng(SEED))
    label = layout.assign(points, centres)
    layout.check(label, tensors["combination"].numpy(), CLUSTERS)
    print(f"data: clusters of {np.bincount(label).tolist()} scenes")
    tensors["cluster"] = torch.from_numpy(label)
    save_file(tensors, folder / "data.new")
    (folder / "data.new").rename(folder / "data.safetensors")
    return time.monotonic() - begun


def _part(folder: Path, autoencoder: AutoencoderKL, number: int) -> dict[str, Tensor]:
    """One part of the set, read when an interrupted run has it already."""
    path = folder / "parts" / f"{number}.safetensors"
    if path.exists():
        return load_file(path)
    count = ROUNDS // PARTS * len(draw.COMBINATIONS)
    scene = draw.random_scene(count, np.random.default_rng((SEED, number)))
    tensors = {
        "latents": vae.encode(autoencoder, scene),
        "combination": torch.from_numpy(_combination(scene)),
        "layout": torch.from_numpy(scene.layout),
    }
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)
    return tensors


def _combination(scene: draw.Scene) -> draw.Ints:
    index = {c: i for i, c in enumerate(draw.COMBINATIONS)}
    named = zip(scene.shape.tolist(), scene.colour.tolist(), scene.background.tolist(), strict=True)
    return np.array([index[c] for c in named], dtype=np.int64)
