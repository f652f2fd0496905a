"""Tensors from disk: safetensors only, memory-mapped, checked by name and shape before use.

Called by the families' loaders. Never unpickles. What dies with it: nothing, it holds no state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from baguette.device import Numbers
from baguette.errors import WeightsError
from baguette.quantization import Quantized, quantize
from baguette.stored import Stored

LISTED = 12


def read_tensors(path: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Memory-map one safetensors file whose names and shapes are exactly `expected`.

    Raises WeightsError naming every missing key, unexpected key and wrong shape.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check(path, shapes, expected)
            return {name: file.get_tensor(name) for name in expected}
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing: fetch the weights again") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error})") from None


def _check(
    path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    wrong = [
        f"{name}: got {found[name]} but expected {expected[name]}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    faults = [
        _some("missing keys", sorted(expected.keys() - found.keys())),
        _some("unexpected keys", sorted(found.keys() - expected.keys())),
        _some("wrong shapes", wrong),
    ]
    if any(faults):
        raise WeightsError(f"{path} does not fit its config: " + "; ".join(filter(None, faults)))


def _some(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{title} {', '.join(names[:LISTED])}{more}"


def fill(module: nn.Module, path: Path, numbers: Numbers) -> None:
    """Give `module` (built on the meta device) its weights from `path`, as `numbers` says.

    2-D weights that a layer can keep small (`kept_small`) are kept in `numbers.store`, quantised
    on the way where that is int8 and the file is not; all others as they compute.
    """
    expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    for name, tensor in read_tensors(path, expected).items():
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        small = attribute in getattr(owner, "kept_small", ())
        kept = _kept(tensor, numbers.store if small else numbers.compute, numbers)
        if isinstance(kept, Stored):
            delattr(owner, attribute)
            owner.add_module(attribute, kept)
        else:
            owner._parameters[attribute] = nn.Parameter(kept, requires_grad=False)


def _kept(tensor: Tensor | Quantized, store: torch.dtype, numbers: Numbers) -> Tensor | Stored:
    if store == torch.int8:
        small = tensor if isinstance(tensor, Quantized) else quantize(tensor)
        values, scale = _own(small.values, torch.int8, numbers), small.scale
        return Stored(Quantized(values, _own(scale, torch.float32, numbers)))
    if isinstance(tensor, Quantized):
        tensor = tensor.dequantized(store)
    own = _own(tensor, store, numbers)
    return own if store == numbers.compute else Stored(own)


def _own(tensor: Tensor, dtype: torch.dtype, numbers: Numbers) -> Tensor:
    """A tensor of this process: what is mapped from a file changes, or ends, with the file."""
    moved = tensor.to(numbers.device, dtype)
    return moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved.contiguous()


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Around another library's loader: whatever it says of damaged files becomes a WeightsError."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        raise WeightsError(f"{folder} cannot be loaded ({reason})") from None


def complete(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse what a foreign loader only warns about: it fills a missing tensor with noise."""
    found = {
        name: sorted(str(key) for key in info.get(f"{name}_keys", ()))
        for name in ("missing", "unexpected", "mismatched")
    }
    # A buffer that older releases wrote and that holds 0, 1, 2, ...
    found["unexpected"] = [key for key in found["unexpected"] if "position_ids" not in key]
    faults = [_some(f"{name} keys", keys) for name, keys in found.items()]
    if any(faults):
        raise WeightsError(f"{folder} does not fit its config: " + "; ".join(filter(None, faults)))
