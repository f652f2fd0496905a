"""The networks: a shared DiT with the text encoder, eight experts grown from it, and the router."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from baguette.families.paris.config import ExpertConfig, RouterConfig
from baguette.families.paris.expert import Expert
from baguette.families.paris.layers import initialise
from baguette.families.paris.router import Router
from mini import data, vae, words
from mini.loop import Plan, Stage, State

BATCH = 128
LATENT_SIZE = 8
SHARED = Plan(steps=7000, learning_rate=1.2e-3, seed=2, ema=0.999)
EXPERT = Plan(steps=4000, cycles=2, learning_rate=5e-4, seed=30, ema=0.998, warmup=50)
ROUTER = Plan(steps=2500, learning_rate=1e-3, seed=40, ema=0.998)
AT_ONCE = 2  # experts trained side by side, one thread each


def expert_config(number: int) -> ExpertConfig:
    """An expert of about a million parameters."""
    return ExpertConfig(
        expert_id=number, hidden_size=96, num_layers=6, num_heads=4, patch_size=2,
        in_channels=vae.LATENT_CHANNELS, out_channels=vae.LATENT_CHANNELS,
        text_embed_dim=words.WIDTH, image_size=LATENT_SIZE,
    )  # fmt: skip


def router_config() -> RouterConfig:
    """A router a tenth of an expert."""
    return RouterConfig(
        num_clusters=data.CLUSTERS, hidden_size=64, num_layers=3, num_heads=4, patch_size=2,
        in_channels=vae.LATENT_CHANNELS, image_size=LATENT_SIZE,
    )  # fmt: skip


def train_shared(folder: Path) -> float:
    """The DiT all experts start from, trained with the text encoder; seconds spent."""
    torch.manual_seed(SHARED.seed)
    words.write_tokenizer(folder / "tokenizer")
    ids = words.caption_ids(folder / "tokenizer")
    scenes = data.Scenes(folder)
    dit = Expert(expert_config(0))
    initialise(dit)
    text = words.build(folder / "tokenizer")

    def loss_of(_step: int, generator: torch.Generator) -> Tensor:
        batch = scenes.batch(BATCH, generator)
        rows, place = batch.caption.unique(return_inverse=True)
        context = text(input_ids=ids[rows]).last_hidden_state[place]
        return F.mse_loss(dit(batch.x_t, batch.network_t, context), batch.velocity)

    stage = Stage("shared", folder, nn.ModuleDict({"dit": dit, "text": text}), SHARED)
    average = stage.run(loss_of)
    text.load_state_dict(_below(average, "text."))
    text.save_pretrained(folder / "text_encoder")
    save_file({"contexts": words.contexts(text.eval(), ids)}, folder / "contexts.safetensors")
    _save(_below(average, "dit."), folder / "shared.safetensors")
    return stage.seconds


def _below(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _save(state: State, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in state.items()}, path)


def train_experts(folder: Path) -> float:
    """Every expert apart, on its own cluster only, two at a time; seconds of the sum."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(AT_ONCE, mp_context=spawn) as pool:
        numbers = range(data.CLUSTERS)
        return sum(pool.map(train_expert, [folder] * len(numbers), numbers))


def train_expert(folder: Path, number: int) -> float:
    """One expert from the shared DiT, the text encoder frozen; seconds spent."""
    done = folder / f"expert_{number}.safetensors"
    torch.set_num_threads(1)
    scenes = data.Scenes(folder)
    contexts = load_file(folder / "contexts.safetensors")["contexts"]
    module = Expert(expert_config(number))
    module.load_state_dict(load_file(folder / "shared.safetensors"))

    def loss_of(_step: int, generator: torch.Generator) -> Tensor:
        batch = scenes.batch(BATCH, generator, only=number)
        prediction = module(batch.x_t, batch.network_t, contexts[batch.caption])
        return F.mse_loss(prediction, batch.velocity)

    plan = Plan(**{**vars(EXPERT), "seed": EXPERT.seed + number})
    stage = Stage(f"expert_{number}", folder, module, plan)
    _save(stage.run(loss_of, position=number % AT_ONCE), done)
    return stage.seconds


def train_router(folder: Path) -> float:
    """Cross-entropy of the cluster on noised latents, clusters in equal parts; seconds spent."""
    torch.manual_seed(ROUTER.seed)
    scenes = data.Scenes(folder)
    module = Router(router_config())
    initialise(module)

    def loss_of(_step: int, generator: torch.Generator) -> Tensor:
        batch = scenes.batch(2 * BATCH, generator)
        return F.cross_entropy(module(batch.x_t, batch.network_t), batch.cluster)

    stage = Stage("router", folder, module, ROUTER)
    _save(stage.run(loss_of), folder / "router.safetensors")
    return stage.seconds
