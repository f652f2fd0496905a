"""A safetensors file written tensor by tensor, and one read the same way, in little memory.

Called by `quantize`, whose files are larger than the memory it may take. The header is computed
from shapes and written first; then every tensor goes to its place in any order. What dies with it:
a file that was not finished, which is why it is written in a place where nobody looks for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from baguette.aliases import CHECKPOINT_KEYS
from baguette.errors import WeightsError
from baguette.weights import Entry, opened, read_header

DTYPES = {
    torch.int8: "I8",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
}
# Pages of a mapped file count as ours until it is closed.
HELD_BYTES = 64 << 20
Specs = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class TensorWriter:
    """A safetensors file of exactly the tensors `specs`, name -> (dtype, shape)."""

    def __init__(self, path: Path, specs: Specs) -> None:
        self._places, header = _layout(specs)
        self._specs = specs
        self._left = set(specs)
        self._start = len(header)
        self.written = 0
        # Writes of whole tensors need no second buffer.
        self._file = path.open("xb", buffering=0)
        self._write(0, header)

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor; ValueError when it is not what the header says."""
        if (tensor.dtype, tuple(tensor.shape)) != self._specs[name] or name not in self._left:
            raise ValueError(f"{name}: got {tensor.dtype} {tuple(tensor.shape)}, or for a 2nd time")
        self._left.remove(name)
        data = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        self._write(self._start + self._places[name], data.data)
        self.written += tensor.nbytes

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            written = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[written:], offset + written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
            if self._left:
                raise ValueError(f"never written: {', '.join(sorted(self._left))}")
            os.fsync(self._file.fileno())


def _layout(specs: Specs) -> tuple[dict[str, int], bytes]:
    """Name -> offset after the header, and the header. Wide numbers first, so all are aligned."""
    places: dict[str, int] = {}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(specs, key=lambda name: (-specs[name][0].itemsize, name)):
        dtype, shape = specs[name]
        places[name], end = end, end + dtype.itemsize * prod(shape)
        entry = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [places[name], end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return places, len(text).to_bytes(8, "little") + text


def file_bytes(specs: Specs) -> int:
    """How long the file of these tensors will be."""
    return len(_layout(specs)[1]) + sum(d.itemsize * prod(shape) for d, shape in specs.values())


class TensorReader:
    """The tensors of a safetensors file or a PyTorch checkpoint, one at a time.

    Raises WeightsError for a file that is neither; of a checkpoint only tensors are ever made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = 0
        self._stack = contextlib.ExitStack()
        self._get: Callable[[str], Tensor] | None = None
        if path.suffix == ".safetensors":
            self.entries = read_header(path)
        else:
            self.entries = [
                Entry(name, DTYPES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
                for name, tensor in read_checkpoint(path).items()
            ]

    def get(self, stored: str) -> Tensor:
        """The tensor called `stored`, mapped from the file."""
        if self._get is None or self._held > HELD_BYTES:
            self.close()
            self._get = self._open()
        tensor = self._get(stored)
        self._held += tensor.nbytes
        return tensor

    def _open(self) -> Callable[[str], Tensor]:
        if self.path.suffix == ".safetensors":
            return self._stack.enter_context(opened(self.path)).get_tensor
        return read_checkpoint(self.path).__getitem__

    def close(self) -> None:
        """Give the file back."""
        self._get, self._held = None, 0
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a PyTorch checkpoint, mapped into memory: tensors only, by their names."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except (
        pickle.UnpicklingError, OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError,
        AttributeError, IndexError,
    ) as error:  # fmt: skip
        reason = str(error).strip().partition("\n")[0][:200]
        raise WeightsError(
            f"{path} is not a PyTorch checkpoint of tensors only, or is damaged ({reason}); "
            "save its state_dict again with torch.save"
        ) from None
    return _weights_of(path, held)


def _weights_of(path: Path, held: Any) -> dict[str, Tensor]:
    while isinstance(held, dict) and not any(isinstance(v, Tensor) for v in held.values()):
        inner = [held[key] for key in CHECKPOINT_KEYS if isinstance(held.get(key), dict)]
        if not inner:
            break
        held = inner[0]
    if not isinstance(held, dict) or not held:
        where = " or ".join(CHECKPOINT_KEYS)
        raise WeightsError(f"{path} holds no tensors by name, nor under {where}")
    others = sorted(str(name)[:60] for name, value in held.items() if not _plain(name, value))
    if others:
        shown = ", ".join(others[:6])
        raise WeightsError(f"{path} holds other things than tensors among its weights: {shown}")
    return held


def _plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
    )
