"""The Paris router: DiT-B/2 with AdaLN-Zero and a CLS token; latent and time -> expert logits.

It never sees the text. Called by the requesting half (`requester.py`) once per step and image, and
by the training recipe. Symbols: N batch, T patch tokens, D hidden size, K experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baguette.families.paris.config import RouterConfig, Settings
from baguette.families.paris.layers import Attention, Mlp, PatchEmbed, TimeEmbed
from baguette.families.paris.modulation import PER_BLOCK, KeptModulations, Modulation, modulate
from baguette.reuse import relative_changes

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


class Block(nn.Module):
    """AdaLN-Zero block: its own SiLU and Linear turn t_emb into six modulations."""

    def __init__(self, config: RouterConfig, norm_eps: float) -> None:
        super().__init__()
        d = config.hidden_size
        self.eps = norm_eps
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.attn = Attention(d, config.num_heads)
        self.mlp = Mlp(d, config.mlp_ratio)

    def forward(self, h: Tensor, mod: Sequence[Tensor]) -> Tensor:
        shift_a, factor_a, gate_a, shift_m, factor_m, gate_m = mod
        normed = F.layer_norm(h, h.shape[-1:], eps=self.eps)
        h = torch.addcmul(h, gate_a, self.attn(modulate(normed, shift_a, factor_a)))
        normed = F.layer_norm(h, h.shape[-1:], eps=self.eps)
        return torch.addcmul(h, gate_m, self.mlp(modulate(normed, shift_m, factor_m)))


class Router(nn.Module):
    """x (N, C, S, S), t (N,) in network units -> logits (N, K)."""

    def __init__(self, config: RouterConfig, settings: Settings | None = None) -> None:
        super().__init__()
        settings = settings or Settings()
        d = config.hidden_size
        self.config = config
        self.patch_embed = PatchEmbed(config.in_channels, d, config.patch_size)
        tokens = (config.image_size // config.patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, d))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.time_embed = TimeEmbed(d)
        eps = settings.norm_eps
        self.layers = nn.ModuleList(Block(config, eps) for _ in range(config.num_layers))
        self.head = nn.Sequential(
            nn.Linear(d, d),
            _ACTIVATIONS[settings.head_1](),
            nn.LayerNorm(d, eps=eps),
            _ACTIVATIONS[settings.head_3](),
            nn.Linear(d, config.num_clusters),
        )

    def modulation(self, t: Tensor) -> Modulation:
        """t (N,) -> what every block is modulated with."""
        t_emb = self.time_embed(t)
        blocks = cast(list[Block], list(self.layers))
        each = [block.adaLN_modulation(t_emb).unflatten(1, (PER_BLOCK, -1)) for block in blocks]
        return Modulation.of(torch.cat(each, dim=1))

    def predict(self, x: Tensor, mod: Modulation) -> Tensor:
        """The network proper, with time already prepared."""
        h = self.patch_embed(x) + self.pos_embed  # (N, T, D)
        h = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), h], dim=1)  # (N, 1+T, D)
        for number, block in enumerate(self.layers):
            h = block(h, mod.block(number))
        return self.head(h[:, 0])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.predict(x, self.modulation(t))


class PreparedRouter:
    """The router with its modulation kept per time: all images of a grid meet the same times."""

    MAX_TIMES = 256

    def __init__(self, module: Router) -> None:
        self.module = module.eval()
        self._modulations = KeptModulations(self._modulated, self.MAX_TIMES)

    @torch.inference_mode()
    def call(self, latents: Tensor, network_times: tuple[float, ...]) -> Callable[[], Tensor]:
        """Latents (N, C, S, S) fp32 -> a call on any thread for logits (N, K) fp32.

        Of one time, or of N. The modulation is prepared at once; the logits stay on the router's
        device.
        """
        cls = self.module.cls_token
        mod = self._modulations.at(network_times)

        @torch.inference_mode()
        def logits() -> Tensor:
            return self.module.predict(latents.to(cls.device, cls.dtype), mod).float()

        return logits

    @torch.inference_mode()
    def time_change(self, before: float, now: float) -> float:
        """By how much the modulation differs between two network times, as `reuse` measures."""
        first, second = (self._modulations.at((t,)).lines for t in (before, now))
        return relative_changes(first, second)[0]

    def _modulated(self, t: Tensor) -> Modulation:
        return self.module.modulation(t.to(self.module.cls_token.device))
