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

from baguette.errors import WeightsError

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


def fill(
    module: nn.Module, path: Path, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> None:
    """Give `module` (built on the meta device) its weights from `path`, computed in `dtype`."""
    expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    tensors = {name: t.to(device, dtype) for name, t in read_tensors(path, expected).items()}
    module.load_state_dict(tensors, strict=True, assign=True)
    module.requires_grad_(False)


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
