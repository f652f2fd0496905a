"""The expert and its sampler against diffusers, where diffusers does the same job.

The whole expert against PixArt's transformer under the names of the published files: PatchEmbed,
AdaLayerNormSingle, attention, feed-forward and unpatchify are thereby held in one go.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from diffusers.models.embeddings import Timesteps
from torch import Tensor

from baguette.families.paris.layers import timestep_embedding
from baguette.sampler import euler_step
from baguette.schedule import network_time, time_grid
from float64_paris import Float64Expert, largest_difference
from random_paris import SMALL_EXPERT, empty_expert, filled, random_state, shapes_of

# ours -> diffusers'
RENAMED = {
    "patch_embed.weight": "pos_embed.proj.weight",
    "patch_embed.bias": "pos_embed.proj.bias",
    "time_embed.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "time_embed.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "final_layer.linear": "proj_out",
    "final_layer.scale_shift_table": "scale_shift_table",
    ".mlp.0.": ".ff.net.0.proj.",
    ".mlp.2.": ".ff.net.2.",
    ".out_proj.": ".to_out.0.",
    ".attn.": ".attn1.",
    ".cross_attn.": ".attn2.",
    "layers.": "transformer_blocks.",
}


def as_pixart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The expert's tensors under PixArt's names; text projection and positions are left out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "pos_embed" or name.startswith("text_proj"):
            continue
        for ours, theirs in RENAMED.items():
            name = name.replace(ours, theirs)
        if ".in_proj_" in name:
            block, kind = name.split(".in_proj_")
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{block}.to_{part}.{kind}"] = third
        else:
            renamed[name] = tensor
    return renamed


def the_same_pixart(state: dict[str, Tensor]) -> PixArtTransformer2DModel:
    c = SMALL_EXPERT
    model = PixArtTransformer2DModel(
        num_attention_heads=c.num_heads, attention_head_dim=c.hidden_size // c.num_heads,
        in_channels=c.in_channels, out_channels=c.out_channels, num_layers=c.num_layers,
        cross_attention_dim=c.hidden_size, sample_size=c.image_size, patch_size=c.patch_size,
        use_additional_conditions=False, caption_channels=None, norm_eps=1e-6,
    )  # fmt: skip
    model.load_state_dict(as_pixart(state), strict=True)
    model.pos_embed.pos_embed = state["pos_embed"]
    return model.eval().requires_grad_(False)


def test_the_expert_is_pixarts_transformer_with_a_text_projection_of_one_layer() -> None:
    expert = filled(
        empty_expert(SMALL_EXPERT), random_state(shapes_of(empty_expert(SMALL_EXPERT)), seed=1)
    )
    state = expert.state_dict()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 10, SMALL_EXPERT.text_embed_dim, generator=generator)
    t = torch.tensor([1000.0, 300.5])
    projected = text @ state["text_proj.weight"].T + state["text_proj.bias"]
    theirs = the_same_pixart(state)(x, encoder_hidden_states=projected, timestep=t).sample
    assert largest_difference(expert(x, t, text), theirs) <= 2e-6


@pytest.mark.parametrize("t", [0.0, 1.0, 37.5, 500.0, 999.0, 1000.0])
def test_the_time_embedding_is_diffusers_and_float64s(t: float) -> None:
    theirs = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    ours = timestep_embedding(torch.tensor([t]))
    torch.testing.assert_close(ours, theirs(torch.tensor([t])), atol=0, rtol=0)
    exact = Float64Expert({}, 1, 1).sincos(torch.tensor([t]).double().numpy())
    # an angle of up to 1000 has 24 bits, and its frequency too
    assert abs(ours.double().numpy() - exact).max() <= 1e-7 + 1e-7 * t


@pytest.mark.parametrize("steps", [1, 2, 3, 15, 28, 30, 50, 250])
def test_the_default_grid_times_and_steps_are_those_of_diffusers(steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(steps)
    times = time_grid(steps, "flow_match")
    torch.testing.assert_close(torch.tensor(times), scheduler.sigmas, atol=1e-6, rtol=0)
    told = torch.tensor([network_time(t, "1000*sigma") for t in times[:-1]])
    torch.testing.assert_close(told, scheduler.timesteps, atol=1e-3, rtol=0)
    x = theirs = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(steps))
    for (t, t_next), told_t in zip(itertools.pairwise(times), scheduler.timesteps, strict=True):
        x = euler_step(x, torch.sin(3 * x), t, t_next)
        theirs = scheduler.step(torch.sin(3 * theirs), told_t, theirs).prev_sample
    torch.testing.assert_close(x, theirs, atol=2e-5, rtol=0)
