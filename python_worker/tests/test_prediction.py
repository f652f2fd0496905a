"""What an expert predicts becomes velocity after guidance, expert by expert."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from baguette.errors import WeightsError
from baguette.families.paris.config import ModelConfig, Settings
from baguette.families.paris.expert import Expert, PreparedExpert, Row
from baguette.families.paris.loading import load_expert
from baguette.families.paris.tiny import build
from baguette.mixture import Choice, mix
from baguette.prediction import to_velocity
from float64_paris import Array, Float64Expert, guided, largest_difference
from random_paris import SMALL_EXPERT, empty_expert, filled, random_state, shapes_of

NULL, TEXT = "null", "text"
SIZE = (SMALL_EXPERT.in_channels, SMALL_EXPERT.image_size, SMALL_EXPERT.image_size)


def velocity_of_eps(eps: Array, x_t: Array, t: float) -> Array:
    """The facts' formula, number by number."""
    alpha, sigma = math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)
    alpha = alpha if alpha > 0.01 else 0.01
    flat = [
        e - min(20.0, max(-20.0, (x - sigma * e) / alpha))
        for e, x in zip(eps.ravel().tolist(), x_t.ravel().tolist(), strict=True)
    ]
    return np.array(flat).reshape(eps.shape)


@pytest.mark.parametrize("t", [0.0, 0.001, 0.3, 0.7, 0.97, 0.995, 1.0])
def test_eps_becomes_velocity_as_in_float64(t: float) -> None:
    generator = torch.Generator().manual_seed(1)
    eps, x_t = torch.randn(2, 2, 4, 4, generator=generator)
    ours = to_velocity("eps_cosine", eps, x_t, torch.tensor(t))
    wanted = velocity_of_eps(eps.double().numpy(), x_t.double().numpy(), t)
    assert largest_difference(ours, wanted) <= 1e-5


def test_an_eps_expert_that_is_right_gives_the_true_velocity() -> None:
    x0, eps, t = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4), torch.tensor(0.4)
    x_t = math.cos(0.2 * math.pi) * x0 + math.sin(0.2 * math.pi) * eps
    torch.testing.assert_close(to_velocity("eps_cosine", eps, x_t, t), eps - x0)


def test_velocity_stays_as_it_is_and_an_unknown_objective_is_refused() -> None:
    prediction = torch.randn(1, 2, 4, 4)
    assert to_velocity("velocity", prediction, prediction, torch.tensor(0.5)) is prediction
    with pytest.raises(ValueError, match="'x0'"):
        to_velocity("x0", prediction, prediction, torch.tensor(0.5))


class Asked:
    """One small expert, a row for it, and what the float64 network says to both branches."""

    def __init__(self, seed: int, t: float, scale: float = 7.5) -> None:
        generator = torch.Generator().manual_seed(99)
        self.t, self.scale = t, scale
        self.contexts = {
            name: torch.randn(10, SMALL_EXPERT.text_embed_dim, generator=generator)
            for name in (NULL, TEXT)
        }
        self.latent = torch.randn(*SIZE, generator=generator)
        self.state = random_state(shapes_of(empty_expert(SMALL_EXPERT)), seed)
        network = Float64Expert(self.state, SMALL_EXPERT.num_heads, SMALL_EXPERT.num_layers)
        at = torch.tensor([1000 * t])
        self.null, self.conditional = (
            network(self.latent[None], at, self.contexts[name][None])[0] for name in (NULL, TEXT)
        )

    def ours(self, objective: str) -> Array:
        expert = filled(empty_expert(SMALL_EXPERT), self.state)
        assert isinstance(expert, Expert)
        prepared = PreparedExpert(expert, objective)
        for name, context in self.contexts.items():
            prepared.learn(name, context)
        row = Row(self.latent, self.t, 1000 * self.t, TEXT, NULL, self.scale)
        return prepared.velocity([row])[0].double().numpy()

    def converted(self, prediction: Array) -> Array:
        return velocity_of_eps(prediction, self.latent.double().numpy(), self.t)

    def guided_then_converted(self) -> Array:
        return self.converted(guided(self.null, self.conditional, self.scale))

    def converted_then_guided(self) -> Array:
        return guided(self.converted(self.null), self.converted(self.conditional), self.scale)


def test_an_eps_expert_is_guided_in_eps_and_then_converted() -> None:
    early = Asked(seed=1, t=0.98)
    wanted, other = early.guided_then_converted(), early.converted_then_guided()
    assert np.abs(other - wanted).max() > 1, "the clamp must bite, or the order shows nothing"
    assert largest_difference(early.ours("eps_cosine"), wanted) <= 1e-4
    assert largest_difference(early.ours("eps_cosine"), other) > 1e-2


def test_where_the_clamp_does_not_bite_the_order_is_all_one() -> None:
    late = Asked(seed=1, t=0.2, scale=2.0)
    ours = late.ours("eps_cosine")
    assert largest_difference(ours, late.guided_then_converted()) <= 1e-5
    assert largest_difference(ours, late.converted_then_guided()) <= 1e-5


def test_velocity_and_eps_experts_mix_as_velocities() -> None:
    flow, ddpm = Asked(seed=2, t=0.6), Asked(seed=3, t=0.6)
    ours = mix(
        {0: torch.from_numpy(flow.ours("velocity")), 4: torch.from_numpy(ddpm.ours("eps_cosine"))},
        Choice((4, 0), (0.7, 0.3), 0.1),
    )
    wanted = 0.3 * guided(flow.null, flow.conditional, 7.5) + 0.7 * ddpm.guided_then_converted()
    assert largest_difference(ours, wanted) <= 1e-5


def test_rows_of_one_call_are_converted_each_at_its_own_time() -> None:
    asked = Asked(seed=4, t=0.9)
    expert = filled(empty_expert(SMALL_EXPERT), asked.state)
    assert isinstance(expert, Expert)
    prepared = PreparedExpert(expert, "eps_cosine")
    for name, context in asked.contexts.items():
        prepared.learn(name, context)
    rows = [Row(asked.latent, t, 1000 * t, TEXT, NULL, 3.0) for t in (0.9, 0.1)]
    together = prepared.velocity(rows)
    for row, velocity in zip(rows, together, strict=True):
        torch.testing.assert_close(prepared.velocity([row])[0], velocity, atol=1e-4, rtol=1e-5)


def test_the_objective_is_a_setting_of_each_expert(tmp_path: Path) -> None:
    model_dir = build(tmp_path / "mixed")
    path = model_dir / "config.json"
    values = json.loads(path.read_text())
    values["baguette"]["settings"] = {"objectives": {"1": "eps_cosine"}}
    path.write_text(json.dumps(values))
    assert [load_expert(model_dir, k).objective for k in range(3)] == [
        "velocity", "eps_cosine", "velocity",
    ]  # fmt: skip
    values["baguette"]["settings"] = {"objective": "eps_cosine", "objectives": {"2": "velocity"}}
    path.write_text(json.dumps(values))
    settings = ModelConfig.read(model_dir).settings
    assert [settings.objective_of(k) for k in range(3)] == ["eps_cosine", "eps_cosine", "velocity"]
    with pytest.raises(WeightsError, match="'x0' for expert 1"):
        Settings.from_json({"objectives": {"1": "x0"}})
