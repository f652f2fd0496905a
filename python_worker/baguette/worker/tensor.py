"""A tensor on the port: msgpack [dtype, [shape], bytes], little-endian, row-major.

The engine hands these on as opaque blobs: only this package ever reads the header.
"""

from __future__ import annotations

import math
import sys

import msgpack
import torch
from torch import Tensor

from baguette.errors import BadInput
from baguette.worker.payload import MAX_PAYLOAD

DTYPES: dict[str, torch.dtype] = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "u8": torch.uint8,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_DIMENSIONS = 8

if sys.byteorder != "little":
    raise ImportError("tensors cross the port in little-endian; this machine is not")


def pack_tensor(tensor: Tensor) -> bytes:
    """Tensor -> blob."""
    # numpy has no bf16.
    flat = tensor.contiguous().view(torch.uint8) if tensor.dtype is torch.bfloat16 else tensor
    data = flat.numpy(force=True).tobytes()
    packed: bytes = msgpack.packb([_NAMES[tensor.dtype], list(tensor.shape), data])
    return packed


def unpack_tensor(blob: object, dimensions: int) -> Tensor:
    """Blob -> tensor with that many dimensions; BadInput when header and bytes disagree."""
    if not isinstance(blob, bytes):
        raise BadInput(f"a tensor should be a binary, got {type(blob).__name__}")
    try:
        name, shape, data = msgpack.unpackb(blob, max_bin_len=MAX_PAYLOAD, max_ext_len=0)
        dtype = DTYPES[name]
        sizes = [int(size) for size in shape]
        fits = len(data) == math.prod(sizes) * dtype.itemsize
    except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
        raise BadInput(
            f"a tensor's header is malformed ({type(error).__name__}: {error})"
        ) from None
    if len(sizes) != dimensions or len(sizes) > MAX_DIMENSIONS or min(sizes, default=0) < 1:
        raise BadInput(f"a tensor of shape {sizes} came where {dimensions} dimensions belong")
    if not fits:
        raise BadInput(f"a tensor of shape {sizes} {name} has {len(data)} bytes")
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(sizes)
