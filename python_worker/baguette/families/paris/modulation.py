"""What time does to a network, made once per time: the shifts, scales and gates of its blocks.

Used by `expert.py` and `router.py` only. Rows of one batch may be at different times, as those of
different pictures are: each row's line is the one that was kept of its time, not a line of a batch
that was made for it, so it has the same bytes in any company and costs a copy.

Symbols: N batch, M lines (six a block, then two of the expert's final layer), D hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PER_BLOCK = 6
# Of every shift, scale, gate; of a final layer there is no gate.
_SCALES = slice(1, None, 3)


@dataclass(frozen=True)
class Modulation:
    """Lines (N, M, D) as the network makes them, and each of them as `modulate` takes it."""

    lines: Tensor
    parts: tuple[Tensor, ...]  # M of (N, 1, D); a scale is 1 + scale

    @classmethod
    def of(cls, lines: Tensor) -> Modulation:
        """(N, M, D)."""
        parts = list(lines[:, :, None].unbind(1))
        parts[_SCALES] = (1 + lines[:, _SCALES, None]).unbind(1)
        return cls(lines, tuple(parts))

    def block(self, number: int) -> tuple[Tensor, ...]:
        """shift, 1 + scale and gate of the attention, then of the MLP."""
        return self.parts[PER_BLOCK * number : PER_BLOCK * (number + 1)]

    def final(self) -> tuple[Tensor, ...]:
        """shift, 1 + scale of the layer that comes after `M // 6` blocks."""
        return self.parts[-2:]


class KeptModulations:
    """A network's modulation of the times asked for last; a prepared network has one.

    `made` makes it of t (1,) float32, where the network is at that moment: it may move.
    """

    def __init__(self, made: Callable[[Tensor], Modulation], most: int) -> None:
        self._made = made
        self._most = most
        self._kept: OrderedDict[float, Modulation] = OrderedDict()

    def at(self, times: Sequence[float]) -> Modulation:
        """Of N rows at these times; of one time for all, N is 1 and broadcasts."""
        each = {t: self._one(t) for t in dict.fromkeys(times)}
        if len(each) == 1:
            return each[times[0]]
        return Modulation.of(torch.cat([each[t].lines for t in times]))

    def _one(self, t: float) -> Modulation:
        if t not in self._kept:
            self._kept[t] = self._made(torch.tensor([t], dtype=torch.float32))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(t)
        return self._kept[t]


def modulate(x: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    """AdaLN: x (N, T, D) by factor = 1 + scale, and shift, each (N or 1, 1, D)."""
    return torch.addcmul(shift, x, factor)
