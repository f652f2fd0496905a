"""The training loop every stage of paris-mini shares: resumable, under a progress bar, with an EMA.

A stage gives a module and a function (step, generator) -> loss. Step k draws all chance from
a generator seeded by (stage seed, k), so a stage that was stopped goes on as if it had not been.
The checkpoint is the stage's own file in the work folder; it is read with weights_only, never
unpickled.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

State = dict[str, Tensor]
CHECKPOINT_EVERY_S = 30.0


@dataclass(frozen=True)
class Plan:
    """How long and how fast one stage trains."""

    steps: int
    learning_rate: float
    seed: int
    warmup: int = 100
    ema: float = 0.998
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    cycles: int = 1

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a fiftieth, `cycles` times.

        Warm restarts: Loshchilov & Hutter, 2017 (arXiv 1608.03983).
        """
        length = self.steps // self.cycles
        step %= length
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, length - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def generator_for(seed: int, step: int) -> torch.Generator:
    """The only source of chance of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def ema_update(average: State, module: nn.Module, decay: float, step: int) -> None:
    """average <- decay * average + (1 - decay) * weights; a short memory in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                average[name].lerp_(value, 1 - decay)


class Stage:
    """One stage's module, optimiser, average and clock; what a checkpoint holds."""

    def __init__(self, name: str, folder: Path, module: nn.Module, plan: Plan) -> None:
        self.name, self.path, self.module, self.plan = name, folder / f"{name}.pt", module, plan
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            trained, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
        )
        self.average = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.step, self.seconds, self.trail = 0, 0.0, list[float]()
        if self.path.exists():
            self._restore(torch.load(self.path, weights_only=True))

    def _restore(self, saved: dict[str, object]) -> None:
        self.module.load_state_dict(saved["module"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(saved["optimiser"])  # type: ignore[arg-type]
        self.average = saved["average"]  # type: ignore[assignment]
        self.step = int(saved["step"])  # type: ignore[call-overload]
        self.seconds = float(saved["seconds"])  # type: ignore[arg-type]
        self.trail = list(saved["trail"])  # type: ignore[call-overload]

    def save(self) -> None:
        """Write the checkpoint beside the old one, then put it in its place."""
        state = {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
            "trail": self.trail,
        }
        new = self.path.with_suffix(".new")
        torch.save(state, new)
        os.replace(new, self.path)

    def run(self, loss_of: Callable[[int, torch.Generator], Tensor], position: int = 0) -> State:
        """Train to the end of the plan and return the averaged weights."""
        steps, name = self.plan.steps, self.name
        bar = tqdm(total=steps, initial=self.step, desc=name, position=position, mininterval=2)
        try:
            self._train(loss_of, bar)
        finally:
            self.save()
            bar.close()
        return self.average

    def _train(self, loss_of: Callable[[int, torch.Generator], Tensor], bar: tqdm[None]) -> None:
        shown, saved = 0.0, time.monotonic()
        while self.step < self.plan.steps:
            begun = time.monotonic()
            loss = self._one(loss_of)
            now = time.monotonic()
            self.seconds += now - begun
            shown = loss if self.step == 1 else 0.98 * shown + 0.02 * loss if shown else loss
            bar.update()
            bar.set_postfix(loss=f"{shown:.4f}", refresh=False)
            if self.step % 50 == 0:
                self.trail.append(shown)
            if now - saved > CHECKPOINT_EVERY_S:
                self.save()
                saved = now

    def _one(self, loss_of: Callable[[int, torch.Generator], Tensor]) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate(self.step)
        loss = loss_of(self.step, generator_for(self.plan.seed, self.step))
        if not torch.isfinite(loss):
            raise SystemExit(f"{self.name}: the loss at step {self.step} is not finite")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        ema_update(self.average, self.module, self.plan.ema, self.step)
        return float(loss.detach())


def note_time(folder: Path, stage: str, seconds: float) -> None:
    """Write how long a stage took into times.json; the README of the weights quotes it."""
    path = folder / "times.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    times[stage] = round(seconds, 1)
    path.write_text(json.dumps(times, indent=1))
