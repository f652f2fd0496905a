"""One Paris expert: DiT-XL/2 with AdaLN-Single (PixArt style), as published.

`Expert` is the bare network that training uses; `PreparedExpert` is the same network with what is
constant over a picture kept: keys and values per text context, modulation per time. The expert
worker and the single-process pipeline both call `PreparedExpert`, so they agree to the byte.
Nothing heavy is imported here: an expert worker needs torch and safetensors only.

Symbols: N batch, T patch tokens, L text tokens, D hidden size, C latent channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baguette.errors import BadInput
from baguette.families.paris.config import ExpertConfig
from baguette.families.paris.contexts import ContextCache, KeysValues
from baguette.families.paris.layers import Attention, Mlp, PatchEmbed, TimeEmbed
from baguette.families.paris.modulation import PER_BLOCK, KeptModulations, Modulation, modulate
from baguette.prediction import to_velocity
from baguette.stored import Linear


class Block(nn.Module):
    """One transformer block; its modulation is scale_shift_table + t0."""

    def __init__(self, config: ExpertConfig, norm_eps: float) -> None:
        super().__init__()
        d = config.hidden_size
        self.eps = norm_eps
        self.scale_shift_table = nn.Parameter(torch.zeros(6, d))
        self.attn = Attention(d, config.num_heads)
        self.cross_attn = Attention(d, config.num_heads)
        self.mlp = Mlp(d, config.mlp_ratio)

    def modulation(self, t0: Tensor) -> Tensor:
        """t0 (N, 6, D) -> (N, 6, D): shift_a, scale_a, gate_a, shift_m, scale_m, gate_m."""
        return self.scale_shift_table[None] + t0

    def forward(self, h: Tensor, mod: Sequence[Tensor], kv: tuple[Tensor, Tensor]) -> Tensor:
        shift_a, factor_a, gate_a, shift_m, factor_m, gate_m = mod
        normed = F.layer_norm(h, h.shape[-1:], eps=self.eps)
        h = torch.addcmul(h, gate_a, self.attn(modulate(normed, shift_a, factor_a)))
        h = h + self.cross_attn.cross(h, *(_to_rows(t, h.shape[0]) for t in kv))
        normed = F.layer_norm(h, h.shape[-1:], eps=self.eps)
        return torch.addcmul(h, gate_m, self.mlp(modulate(normed, shift_m, factor_m)))


def _to_rows(contexts: Tensor, rows: int) -> Tensor:
    """Keys or values (G, H, L, D/H), each for as many rows as share it, in order.

    Not one longer sequence of queries instead: a row's bytes would depend on how many there are.
    """
    each = rows // contexts.shape[0]
    return contexts if each == 1 else contexts.repeat_interleave(each, 0)


class FinalLayer(nn.Module):
    """Modulated by t_emb itself, not t0."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.scale_shift_table = nn.Parameter(torch.zeros(2, d))
        self.linear = Linear(d, config.patch_size**2 * config.out_channels)


@dataclass(frozen=True)
class Context:
    """A text context (L, D) fp32 under the hash that names it everywhere."""

    hash: str
    tensor: Tensor


class Expert(nn.Module):
    """x (N, C, S, S), t (N,) in network units, text (N, L, text_embed_dim) -> (N, C, S, S)."""

    def __init__(self, config: ExpertConfig, norm_eps: float = 1e-6) -> None:
        super().__init__()
        d = config.hidden_size
        self.config = config
        self.eps = norm_eps
        self.patch_embed = PatchEmbed(config.in_channels, d, config.patch_size)
        tokens = (config.image_size // config.patch_size) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, d))
        self.time_embed = TimeEmbed(d)
        self.text_proj = Linear(config.text_embed_dim, d)
        self.t_block = nn.Sequential(nn.SiLU(), Linear(d, 6 * d))
        self.layers = nn.ModuleList(Block(config, norm_eps) for _ in range(config.num_layers))
        self.final_layer = FinalLayer(config)

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.layers))

    def keys_values(self, text: Tensor) -> KeysValues:
        """text (N, L, text_embed_dim) -> each block's cross-attention keys and values."""
        projected = self.text_proj(text)  # (N, L, D)
        return [block.cross_attn.keys_values(projected) for block in self._blocks()]

    def modulation(self, t: Tensor) -> Modulation:
        """t (N,) -> what every block and the final layer are modulated with."""
        t_emb = self.time_embed(t)  # (N, D)
        t0 = self.t_block(t_emb).unflatten(1, (PER_BLOCK, -1))  # (N, 6, D)
        final = self.final_layer.scale_shift_table[None] + t_emb[:, None]  # (N, 2, D)
        return Modulation.of(torch.cat([*(b.modulation(t0) for b in self._blocks()), final], 1))

    def predict(self, x: Tensor, mod: Modulation, kv: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The network proper, time and text prepared: of each of G contexts N/G rows, in order."""
        h = self.patch_embed(x) + self.pos_embed  # (N, T, D)
        for number, (block, block_kv) in enumerate(zip(self.layers, kv, strict=True)):
            h = block(h, mod.block(number), block_kv)
        h = modulate(F.layer_norm(h, h.shape[-1:], eps=self.eps), *mod.final())
        return self._unpatchify(self.final_layer.linear(h), x.shape[-2:])

    def _unpatchify(self, h: Tensor, size: Sequence[int]) -> Tensor:
        p, c = self.config.patch_size, self.config.out_channels
        rows, columns = size[0] // p, size[1] // p
        h = h.reshape(h.shape[0], rows, columns, p, p, c).permute(0, 5, 1, 3, 2, 4)
        return h.reshape(h.shape[0], c, rows * p, columns * p)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.predict(x, self.modulation(t), self.keys_values(text))


Predict = Callable[[Tensor, Modulation, Iterable[tuple[Tensor, Tensor]]], Tensor]
_owners = itertools.count()
# The row counts a compiled network is made for; a call of another count is filled up.
BUCKETS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Row:
    """One image's question: latent (C, S, S) fp32 at time t in [0, 1], and its contexts by hash."""

    latent: Tensor
    t: float
    network_t: float
    context: str
    null_context: str
    guidance_scale: float


def context_names(rows: Sequence[Row]) -> set[str]:
    """Hashes of the contexts that these rows name."""
    return {name for row in rows for name in (row.null_context, row.context)}


class PreparedExpert:
    """An expert with its caches: the pure function (latent, t, context, guidance) -> velocity.

    Contexts are learnt once by hash, in a cache that experts of one process share; `missing` says
    which ones a call would need besides. Latents come and velocities go in fp32, wherever they lie.
    Not thread safe: one compute thread owns it.
    """

    MAX_TIMES = 64

    def __init__(
        self, module: Expert, objective: str = "velocity", contexts: ContextCache | None = None
    ) -> None:
        self.module = module.eval()
        self.objective = objective
        self.contexts = contexts or ContextCache()
        self._compiled: Predict | None = None
        self._owner = next(_owners)
        self._modulations = KeptModulations(self._modulated, self.MAX_TIMES)

    @property
    def device(self) -> torch.device:
        """Where this expert computes."""
        return self.module.pos_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """What this expert computes in."""
        return self.module.pos_embed.dtype

    def missing(self, rows: Sequence[Row]) -> list[str]:
        """Hashes of the contexts these rows name and nobody here has learnt."""
        return sorted(h for h in context_names(rows) if not self.contexts.texts.holds(h))

    def learn(self, context_hash: str, context: Tensor, keep: Collection[str] = ()) -> None:
        """Keep one context (L, text_embed_dim) fp32.

        Others may be forgotten for it, but none in `keep`: what the call in hand needs besides.
        """
        if context.dim() != 2 or context.shape[1] != self.module.config.text_embed_dim:
            raise BadInput(
                f"got a context of shape {tuple(context.shape)} but expected "
                f"(L, {self.module.config.text_embed_dim})"
            )
        self.contexts.texts.put(context_hash, context, keep)

    def learn_missing(self, rows: Sequence[Row], contexts: Iterable[Context]) -> None:
        """Learn those of these contexts that the rows name and that are not known."""
        missing = self.missing(rows)
        for context in contexts:
            if context.hash in missing:
                self.learn(context.hash, context.tensor, keep=context_names(rows))

    def forget(self, context_hashes: Sequence[str]) -> None:
        """Give back these contexts and what was kept for them."""
        self.contexts.forget(self._owner, context_hashes)
        for name in context_hashes:
            self.contexts.texts.drop(name)

    def close(self) -> None:
        """Give back all that was kept for this expert alone."""
        self.contexts.forget_owner(self._owner)

    def velocity(self, rows: Sequence[Row]) -> Tensor:
        """Guided velocity of each row, (N, C, S, S) fp32 on the CPU; one row is the canonical call.

        Both guidance branches run as one batch [null..., conditional...].
        """
        return self._call(rows, self.module.predict)().cpu()

    def together(self, rows: Sequence[Row]) -> Callable[[], Tensor]:
        """The same as a call yet to be made, on any thread; its answer stays where it computes.

        As fast as it goes: with the compiled network, if there is one, whose bytes are its own.
        """
        if self._compiled is None:
            return self._call(rows, self.module.predict)
        filled = [*rows, *[rows[-1]] * (bucket(len(rows)) - len(rows))]
        call = self._call(filled, self._compiled)
        return lambda: call()[: len(rows)]

    def compile(self) -> None:
        """Let `together` use torch.compile, a graph for each row count of BUCKETS."""
        self._compiled = torch.compile(self.module.predict, dynamic=False)

    @torch.inference_mode()
    def _call(self, rows: Sequence[Row], predict: Predict) -> Callable[[], Tensor]:
        """All that touches a cache is done at once; the rest is the call that comes back."""
        times = [row.network_t for row in rows]
        mod = self._modulations.at(times + times)
        keys_values = self._keys_values(rows)

        @torch.inference_mode()
        def guided() -> Tensor:
            """v_u + s (v_c - v_u): classifier-free guidance, Ho & Salimans (arXiv 2207.12598)."""
            latents = torch.stack([row.latent for row in rows]).to(self.device)  # (N, C, S, S)
            both = torch.cat([latents, latents]).to(self.dtype)
            null, conditional = predict(both, mod, keys_values).float().chunk(2)
            scale = torch.tensor([row.guidance_scale for row in rows])[:, None, None, None]
            guided = null + scale.to(null) * (conditional - null)
            if self.objective == "velocity":
                return guided
            times = torch.tensor([row.t for row in rows])[:, None, None, None].to(null)
            return to_velocity(self.objective, guided, latents, times)

        return guided

    def _keys_values(self, rows: Sequence[Row]) -> Iterable[tuple[Tensor, Tensor]]:
        needed = context_names(rows)
        for name in sorted(needed):
            text = self.contexts.texts.get(name)
            if not self.contexts.holds(self._owner, name):
                # Each alone: its bytes are the same whenever they are made again.
                made = self.module.keys_values(text[None].to(self.device, self.dtype))
                self.contexts.put(self._owner, (name,), made, keep=needed)
        pairs = {(row.null_context, row.context) for row in rows}
        if len(pairs) == 1:
            return self.contexts.pair(self._owner, pairs.pop())
        names = [row.null_context for row in rows] + [row.context for row in rows]
        return self.contexts.rows(self._owner, names)

    def _modulated(self, t: Tensor) -> Modulation:
        return self.module.modulation(t.to(self.device))


def bucket(rows: int) -> int:
    """The least of BUCKETS that holds so many rows, or so many themselves beyond the largest."""
    return next((size for size in BUCKETS if size >= rows), rows)
