"""Tensors from disk: safetensors only, memory-mapped, checked by name, shape and kind before use.

Called by the families' loaders, by `inspect` and by `quantize`. Never unpickles. Names may be any
of `baguette.aliases`; an INT8 tensor and its scale become one `Quantized`. What dies with it:
nothing, it holds no state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from baguette.aliases import SCALES, companion, published_name
from baguette.device import Numbers
from baguette.errors import WeightsError
from baguette.quantization import Quantized, quantize
from baguette.stored import Stored

LISTED = 12
INT8 = "I8"
FLOATS = ("BF16", "F16", "F32", "F64")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """A tensor as a file's header tells of it: its name there, safetensors' dtype, its shape."""

    stored: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Scale:
    """An INT8 tensor's companion: its name in the file, and the number it is multiplied with."""

    stored: str
    number: float


@dataclass
class Contents:
    """What a file holds against what it should: under published names, with every fault."""

    entries: dict[str, Entry] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, title: str, what: str) -> None:
        """One more line under `title`."""
        self.faults.setdefault(title, []).append(what)

    def sentence(self) -> str:
        """Every kind of fault with its first names; empty when there is none."""
        return "; ".join(_some(title, sorted(names)) for title, names in self.faults.items())


def read_header(path: Path) -> list[Entry]:
    """The tensors of one safetensors file, none of their bytes.

    Raises WeightsError for a file that is missing or is not a whole safetensors file.
    """
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return [Entry(n, s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()]


def match(found: list[Entry], expected: Shapes) -> Contents:
    """Hold the tensors of a file against the names and shapes a component must have."""
    contents = Contents()
    named = [(published_name(entry.stored, expected), entry) for entry in found]
    int8 = {name: entry for name, entry in named if entry.dtype == INT8}
    for name, entry in named:
        owner = None if name in expected else companion(name, int8)
        if owner is not None:
            _match_scale(contents, *owner, entry, int8[owner[0]])
        elif name not in expected:
            orphan = name.lower().endswith(tuple(SCALES))
            title = "scales of no INT8 tensor" if orphan else "unexpected keys"
            contents.fault(title, entry.stored)
        elif name in contents.entries:
            both = f"{contents.entries[name].stored} and {entry.stored}"
            contents.fault("two names of one tensor", f"{both} are both {name}")
        else:
            contents.entries[name] = entry
            _match_kind(contents, name, entry, expected[name])
    for name in expected.keys() - contents.entries.keys():
        contents.fault("missing keys", name)
    for name in (int8.keys() & contents.entries.keys()) - contents.scales.keys():
        contents.fault("INT8 tensors without a scale", name)
    return contents


def _match_kind(contents: Contents, name: str, entry: Entry, shape: tuple[int, ...]) -> None:
    if entry.shape != shape:
        contents.fault("wrong shapes", f"{name}: got {entry.shape} but expected {shape}")
    if entry.dtype == INT8 and len(entry.shape) != 2:
        contents.fault("INT8 tensors that are no matrices", f"{name}: {entry.shape}")
    elif entry.dtype not in (*FLOATS, INT8):
        contents.fault("unknown kinds of number", f"{name}: {entry.dtype}")


def _match_scale(contents: Contents, owner: str, number: float, scale: Entry, of: Entry) -> None:
    if owner in contents.scales:
        both = f"{contents.scales[owner].stored} and {scale.stored}"
        contents.fault("two scales of one tensor", f"{both} are both of {owner}")
        return
    contents.scales[owner] = Scale(scale.stored, number)
    rows = of.shape[0] if of.shape else 1
    if scale.dtype not in FLOATS or scale.numel not in (1, rows):
        got = f"{scale.dtype} {scale.shape}"
        contents.fault("wrong scales", f"{scale.stored}: got {got} but expected 1 or {rows} floats")


def read_tensors(path: Path, expected: Shapes) -> dict[str, Tensor | Quantized]:
    """Memory-map one safetensors file whose names and shapes are exactly `expected`.

    Float tensors come as they are stored, INT8 ones with their scale as `Quantized`. Raises
    WeightsError naming every missing key, unexpected key, wrong shape, orphan scale and INT8 tensor
    without one.
    """
    contents = matching(path, expected)
    with opened(path) as file:
        return {name: take(path, file.get_tensor, contents, name) for name in expected}


def matching(path: Path, expected: Shapes) -> Contents:
    """What `path` holds; WeightsError naming every fault when it is not exactly `expected`."""
    contents = match(read_header(path), expected)
    if contents.faults:
        raise WeightsError(f"{path} does not fit its config: {contents.sentence()}")
    return contents


def take(path: Path, get: Any, contents: Contents, name: str) -> Tensor | Quantized:
    """One tensor by its published name; `get(stored name)` gives those of the file."""
    values = get(contents.entries[name].stored)
    if name not in contents.scales:
        return values
    scale = contents.scales[name]
    wide = get(scale.stored).float().reshape(-1, 1) * scale.number
    if not bool((torch.isfinite(wide) & (wide >= 0)).all()):
        raise WeightsError(f"{path}: {scale.stored} is not a scale: negative or not finite")
    return Quantized(values, wide.expand(values.shape[0], 1).contiguous())


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file as that library opens it; WeightsError when it is no such file."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing: fetch the weights again") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error})") from None


def _some(title: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{title} {', '.join(names[:LISTED])}{more}"


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """What a file for `module` (on any device) must hold: names and shapes."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def fill(module: nn.Module, path: Path, numbers: Numbers) -> None:
    """Give `module` (built on the meta device) its weights from `path`, as `numbers` says.

    2-D weights that a layer can keep small (`kept_small`) are kept in `numbers.store`, quantised
    on the way where that is int8 and the file is not; all others as they compute.
    """
    for name, tensor in read_tensors(path, shapes_of(module)).items():
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
