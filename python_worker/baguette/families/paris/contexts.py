"""Text contexts of the prompts in use, and each expert's cross-attention keys and values of them.

Keys and values depend on (expert, prompt) only, so they are kept for all of a picture's steps. They
are 84 times their text (Paris, fp32): with many prompts at once they come and go, and are made from
the text again, which is small beside a call. Only a text that is gone has to be sent again.

One cache serves every expert of a process, within a budget of bytes that placement counts as taken
(`machine.CONTEXTS_MIB`); whoever was asked least recently goes first. A guided call needs two
contexts as one batch, so a pair takes the place of its parts. Called by `PreparedExpert`. What dies
with it: nothing that a caller cannot send again.

Symbols: L text tokens, H heads, D hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from baguette.machine import CONTEXTS_MIB

KeysValues = list[tuple[Tensor, Tensor]]
"""Of each block its keys and values, (N, H, L, D/H) for N contexts."""

Key = tuple[int, tuple[str, ...]]
_MIB = 1 << 20
# One part in so many of the budget is for texts: 64 MiB are 280 prompts of Paris.
_TEXTS = 4


class Texts:
    """Contexts (L, text_embed_dim) fp32 by hash, on the CPU; least recently used first out."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    def holds(self, name: str) -> bool:
        """Whether this context is here."""
        return name in self._texts

    def put(self, name: str, text: Tensor, keep: Collection[str]) -> None:
        """Keep this context; others go, but none in `keep`."""
        self.drop(name)
        self._texts[name] = text
        self.bytes += _size(text)
        for other in list(self._texts):
            if self.bytes <= self.budget_bytes:
                break
            if other != name and other not in keep:
                self.drop(other)

    def get(self, name: str) -> Tensor:
        """The context; KeyError without it."""
        self._texts.move_to_end(name)
        return self._texts[name]

    def drop(self, name: str) -> None:
        """Give it back, if it is here."""
        gone = self._texts.pop(name, None)
        self.bytes -= 0 if gone is None else _size(gone)


class ContextCache:
    """Least recently used first out, by bytes; what the call in hand needs is never put out."""

    def __init__(self, budget_bytes: int = CONTEXTS_MIB * _MIB) -> None:
        texts_bytes = budget_bytes // _TEXTS
        self.texts = Texts(texts_bytes)
        self.budget_bytes = budget_bytes - texts_bytes
        self.bytes = 0
        self._entries: OrderedDict[Key, KeysValues] = OrderedDict()
        self._where: dict[tuple[int, str], Key] = {}  # of each context, one entry that has it

    def holds(self, owner: int, name: str) -> bool:
        """Whether this expert's keys and values of this context are here."""
        return (owner, name) in self._where

    def put(
        self, owner: int, names: tuple[str, ...], keys_values: KeysValues, keep: Collection[str]
    ) -> None:
        """Keep these contexts, one or a pair; others go, but none of this owner's in `keep`."""
        for name in names:
            self._drop((owner, (name,)))
        self._drop((owner, names))
        self._entries[owner, names] = keys_values
        self._where |= {(owner, name): (owner, names) for name in names}
        self.bytes += _bytes(keys_values)
        for key in list(self._entries):
            if self.bytes <= self.budget_bytes:
                break
            if key != (owner, names) and not (key[0] == owner and set(key[1]) & set(keep)):
                self._drop(key)

    def pair(self, owner: int, names: tuple[str, ...]) -> KeysValues:
        """Contexts as one batch, which is kept in place of its parts; KeyError without one."""
        if (owner, names) not in self._entries:
            self.put(owner, names, list(self.rows(owner, names)), keep=names)
        self._entries.move_to_end((owner, names))
        return self._entries[owner, names]

    def rows(self, owner: int, names: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
        """Block by block, the contexts of many rows as one batch that is not kept."""
        for block in zip(*[self._one(owner, name) for name in names], strict=True):
            yield torch.cat([keys for keys, _ in block]), torch.cat([values for _, values in block])

    def forget(self, owner: int, names: Collection[str]) -> None:
        """Give back what was kept of these contexts."""
        for key in list(self._entries):
            if key[0] == owner and set(key[1]) & set(names):
                self._drop(key)

    def forget_owner(self, owner: int) -> None:
        """Give back all that was kept for this expert."""
        for key in [key for key in self._entries if key[0] == owner]:
            self._drop(key)

    def _one(self, owner: int, name: str) -> KeysValues:
        key = self._where[owner, name]
        self._entries.move_to_end(key)
        at = key[1].index(name)
        return [(k[at : at + 1], v[at : at + 1]) for k, v in self._entries[key]]

    def _drop(self, key: Key) -> None:
        gone = self._entries.pop(key, None)
        if gone is None:
            return
        self.bytes -= _bytes(gone)
        owner, names = key
        for name in names:
            if self._where.get((owner, name)) == key:
                other = next((k for k in self._entries if k[0] == owner and name in k[1]), None)
                if other is None:
                    del self._where[owner, name]
                else:
                    self._where[owner, name] = other


def _bytes(keys_values: KeysValues) -> int:
    return sum(_size(t) for pair in keys_values for t in pair)


def _size(t: Tensor) -> int:
    return t.numel() * t.element_size()
