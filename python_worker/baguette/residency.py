"""Which of many equal networks lie on the device, while the others wait in CPU memory.

The next network's upload overlaps the work of the one in hand: a stream of its own, from pinned
memory. Routing changes rarely, so who was used last stays. Called by the single-process pipeline.
What dies with it: the device's copies; the weights themselves stay in CPU memory.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


class Slot:
    """Room on the device for one network's tensors."""

    def __init__(self, like: Tensors, device: torch.device) -> None:
        self.tensors = {name: torch.empty_like(t, device=device) for name, t in like.items()}
        self.filled: torch.cuda.Event | None = None
        self.free: torch.cuda.Event | None = None


class Residency:
    """`resident` of these networks, all of the same shapes, lie on `device` at a time."""

    def __init__(
        self, modules: Mapping[int, nn.Module], device: torch.device, resident: int
    ) -> None:
        self._cuda = device.type == "cuda"
        self._modules = modules
        self._home = {number: _tensors(module) for number, module in modules.items()}
        shapes = {str([(n, t.shape, t.dtype) for n, t in h.items()]) for h in self._home.values()}
        if len(shapes) != 1 or not 1 <= resident <= len(modules):
            raise ValueError(f"got {resident} slots for {len(modules)} networks of {len(shapes)}")
        if self._cuda:
            for number, module in modules.items():
                self._home[number] = _pinned(self._home[number])
                _point(module, self._home[number])
        like = next(iter(self._home.values()))
        self._empty = [Slot(like, device) for _ in range(resident)]
        self._slots: OrderedDict[int, Slot] = OrderedDict()  # least recently used first
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self.uploads = 0

    def visit(self, wanted: Sequence[int]) -> Iterator[int]:
        """Each of these numbers once, when its weights are where it computes; the present first."""
        order = sorted(set(wanted), key=lambda number: (number not in self._slots, number))
        for place, number in enumerate(order):
            if number not in self._slots:
                self._upload(number, later=order[place + 1 :])
            slot = self._slots[number]
            self._slots.move_to_end(number)
            if slot.filled is not None:
                torch.cuda.current_stream().wait_event(slot.filled)
                slot.filled = None
            coming = order[place + 1 : place + 2]
            if coming and coming[0] not in self._slots and len(self._empty) + len(self._slots) > 1:
                self._upload(coming[0], later=order[place:])
            try:
                yield number
            finally:
                if self._cuda:
                    slot.free = torch.cuda.Event()
                    slot.free.record()

    def _upload(self, number: int, later: Sequence[int]) -> None:
        slot = self._take(later)
        self.uploads += 1
        with torch.cuda.stream(self._stream) if self._cuda else contextlib.nullcontext():
            if self._stream is not None and slot.free is not None:
                self._stream.wait_event(slot.free)
            for name, tensor in self._home[number].items():
                slot.tensors[name].copy_(tensor, non_blocking=True)
            if self._stream is not None:
                slot.filled = torch.cuda.Event()
                slot.filled.record(self._stream)
        _point(self._modules[number], slot.tensors)
        self._slots[number] = slot

    def _take(self, later: Sequence[int]) -> Slot:
        """An empty slot, or that of whom nobody in `later` needs, or needs last."""
        if self._empty:
            return self._empty.pop()
        idle = [number for number in self._slots if number not in later]
        gone = idle[0] if idle else max(self._slots, key=lambda n: list(later).index(n))
        _point(self._modules[gone], self._home[gone])
        return self._slots.pop(gone)


def _tensors(module: nn.Module) -> Tensors:
    return {
        name: tensor.data for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def _pinned(tensors: Tensors) -> Tensors:
    return {name: tensor.pin_memory() for name, tensor in tensors.items()}


def _point(module: nn.Module, tensors: Tensors) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        tensor.data = tensors[name]
