"""Every name under which a file or a tensor of a mixture may come: the only such table.

Read by the families' file lists, by `weights` and by `quantize`. The first name of a list is the
published one, and what is written bears the names of Baguette's own layout. A name that is in no
list is an error where it is met, never a guess. Pure; imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Tensors of a component; {k} is an expert's number.
EXPERT_FILES = (
    "expert_{k}/diffusion_pytorch_model.safetensors",
    "expert_{k}.safetensors",
)
ROUTER_FILES = (
    "router/pytorch_model.safetensors",
    "router/diffusion_pytorch_model.safetensors",
    "router.safetensors",
)
# What Baguette's own layout calls them, without a file of sizes beside each.
FLAT_EXPERT, FLAT_ROUTER = EXPERT_FILES[-1], ROUTER_FILES[-1]

# PyTorch checkpoints, which only `quantize` opens: {part} is expert_{k} or router.
CHECKPOINT_FILES = tuple(
    stem + suffix
    for stem in ("{part}", "{part}/pytorch_model", "{part}/diffusion_pytorch_model", "{part}/model")
    for suffix in (".pt", ".pth", ".bin")
)
# Where a training run keeps the weights inside its checkpoint; the averaged ones come first.
CHECKPOINT_KEYS = ("ema", "model", "state_dict")

# What wrappers put before every name: data parallel, torch.compile.
_WRAPPERS = re.compile(r"^((module|_orig_mod|model)\.)+")
# A name of other releases of the same networks -> the published one.
_TENSORS = ((re.compile(r"^blocks\."), "layers."),)

# An INT8 tensor's companion: its name, or its name without `weight`, and one of these. The number
# is what w = q * scale * number takes: SCB (bitsandbytes) is the row's largest magnitude itself.
SCALES: dict[str, float] = {
    "_scale": 1.0,
    ".scale": 1.0,
    "_scales": 1.0,
    ".scales": 1.0,
    "_scb": 1.0 / 127,
    ".scb": 1.0 / 127,
}
# How our own files call it.
SCALE = "_scale"


def published_name(name: str, expected: Mapping[str, object]) -> str:
    """The published name of a tensor; `name` itself where it is in `expected` or in no table."""
    if name in expected:
        return name
    name = _WRAPPERS.sub("", name)
    for pattern, replacement in _TENSORS:
        name = pattern.sub(replacement, name)
    return name


def companion(name: str, int8: Iterable[str]) -> tuple[str, float] | None:
    """Whose scale a tensor called `name` is, of those called `int8`, and the number to apply."""
    for suffix, number in SCALES.items():
        if not name.lower().endswith(suffix):
            continue
        stem = name[: -len(suffix)]
        for owner in (stem, stem + ".weight", stem + "_weight"):
            if owner in int8:
                return owner, number
    return None
