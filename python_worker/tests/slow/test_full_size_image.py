"""One image by two experts and a router of published size, against the float64 networks.

Weights are random and on disk in bf16, as published; text encoder and VAE are tiny. Needs 2.7 GB of
disk, 9 GB of memory and two minutes, so it runs only when it is named (README.md beside it).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from baguette.families.paris.config import ExpertConfig, RouterConfig
from baguette.families.paris.files import ROUTER_FILE, expert_file
from baguette.families.paris.tiny import build
from baguette.generation import Generation
from baguette.pipeline import Pipeline
from baguette.runtime import Runtime, cores
from float64_paris import Array, Float64Expert, Float64Router, guided, largest_difference
from random_paris import empty_expert, empty_router, random_state, shapes_of

EXPERT, ROUTER = ExpertConfig(), RouterConfig(num_clusters=2)
TEXT_LENGTH = 77
SEED, SCALE, STEPS, PROMPT = 999, 7.5, 2, "a cute cat"
# Of max|reference|; measured: 1.3e-6 and 2.7e-7.
LATENT_BOUND = 1e-5
WEIGHT_BOUND = 5e-6

pytestmark = pytest.mark.timeout(1800)


class OnDisk(Mapping[str, NDArray[np.float32]]):
    """A safetensors file as a state whose tensors are read when they are used."""

    def __init__(self, path: Path) -> None:
        self.file = safe_open(str(path), framework="pt", device="cpu")
        self.names = list(self.file.keys())

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.file.get_tensor(name).float().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def write(path: Path, module: nn.Module, seed: int) -> None:
    state = random_state(shapes_of(module), seed)
    save_file({k: torch.from_numpy(v).bfloat16() for k, v in state.items()}, path)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its experts, router and text width replaced by the published ones."""
    model = build(
        tmp_path_factory.mktemp("full") / "two", num_experts=2, channels=4, latent_size=32
    )
    # With two steps the default grid's second goes from 0.001 to 0 and would show nothing.
    change(model / "config.json", baguette={"settings": {"grid": "linspace"}})
    for number in range(2):
        config = dataclasses.replace(EXPERT, expert_id=number)
        change(model / f"expert_{number}" / "config.json", **config.to_json())
        write(expert_file(model, number), empty_expert(config), seed=number)
    change(model / "router" / "config.json", **ROUTER.to_json())
    write(model / ROUTER_FILE, empty_router(ROUTER), seed=2)
    change(model / "tokenizer" / "tokenizer_config.json", model_max_length=TEXT_LENGTH)
    text = CLIPTextConfig.from_pretrained(model / "text_encoder").to_dict() | {
        "hidden_size": EXPERT.text_embed_dim, "intermediate_size": 1024,
        "num_attention_heads": 12, "max_position_embeddings": TEXT_LENGTH,
    }  # fmt: skip
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(model / "text_encoder")
    return model


def softmax(logits: Array) -> Array:
    risen = np.exp(logits - logits.max())
    return risen / risen.sum()


def reference(model_dir: Path, texts: torch.Tensor) -> tuple[Array, list[Array]]:
    """Last latent (C, S, S) and each step's router weights; `texts` is null, conditional."""
    router = Float64Router(OnDisk(model_dir / ROUTER_FILE), ROUTER.num_heads, ROUTER.num_layers)
    experts = [
        Float64Expert(OnDisk(expert_file(model_dir, k)), EXPERT.num_heads, EXPERT.num_layers)
        for k in range(2)
    ]
    generator = torch.Generator().manual_seed(SEED)
    latent = torch.randn(1, 4, 32, 32, generator=generator).double().numpy()
    weights = []
    for t, t_next in itertools.pairwise(np.linspace(1, 0, STEPS + 1)):
        told = np.array([1000 * t])
        weights.append(softmax(router(latent, told)[0]))
        twice = (np.repeat(latent, 2, axis=0), np.repeat(told, 2), texts)
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(expert, *twice) for expert in experts]
        velocity = sum(
            weight * guided(*answer.result(), SCALE)
            for weight, answer in zip(weights[-1], answers, strict=True)
        )
        latent = latent + (t_next - t) * velocity
    return latent[0], weights


def draw(model_dir: Path) -> tuple[Pipeline, Generation]:
    pipeline = Pipeline(model_dir, Runtime(threads=cores()))
    request = pipeline.request(PROMPT, n=1, steps=STEPS, guidance_scale=SCALE, top_k=2, seed=SEED)
    return pipeline, pipeline(request)


def test_an_image_of_two_published_experts_is_the_float64_one(model_dir: Path) -> None:
    started = time.monotonic()
    pipeline, done = draw(model_dir)
    drawn = time.monotonic()
    texts = torch.stack(
        [pipeline.requester.encode_null().tensor, pipeline.requester.encode(PROMPT).tensor]
    )
    latent, weights = reference(model_dir, texts)
    weight_errors = [
        largest_difference([dict(zip(c.experts, c.weights, strict=True))[k] for k in range(2)], w)
        for c, w in zip(done.routing[0], weights, strict=True)
    ]
    error = largest_difference(done.latents[0], latent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\nweights within {max(weight_errors):.1e}, latent within {error:.1e}; loaded and drawn "
        f"in {drawn - started:.0f} s ({done.seconds}), float64 in {time.monotonic() - drawn:.0f} s,"
        f" peak {peak:.1f} GiB"
    )
    assert max(weight_errors) <= WEIGHT_BOUND
    assert error <= LATENT_BOUND
    decoded = pipeline.requester.decode(torch.from_numpy(latent).float())
    assert int((decoded.int() - done.pixels[0].int()).abs().max()) <= 1
