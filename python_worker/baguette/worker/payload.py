"""Payloads of the port: one msgpack map each way, every size bounded before it is allocated.

Called by the entry points. The twin of baguette_engine_msgpack.erl; both read the golden bytes in
tests/golden.
"""

from __future__ import annotations

from typing import Any

import msgpack

from baguette.errors import BadInput

MAX_PAYLOAD = 256 << 20
MAX_ITEMS = 4096


def pack(values: dict[str, Any]) -> bytes:
    """A map of str, bytes, int, float, bool, None, lists and maps."""
    packed: bytes = msgpack.packb(values, use_bin_type=True)
    return packed


def unpack(payload: bytes) -> dict[str, Any]:
    """The map in `payload`; BadInput when it is malformed, too large or not a map."""
    if len(payload) > MAX_PAYLOAD:
        raise BadInput(f"a payload of {len(payload)} bytes is larger than {MAX_PAYLOAD}")
    try:
        values = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            max_bin_len=MAX_PAYLOAD,
            max_str_len=1 << 20,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise BadInput(f"the payload is not a bounded msgpack map ({error})") from None
    if not isinstance(values, dict):
        raise BadInput(f"the payload holds a {type(values).__name__} but expected a map")
    return values


def take(values: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """values[name], checked; BadInput names the field when it is missing or of another kind."""
    value = values.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadInput(f"field {name!r} got {type(value).__name__} but expected {kind}")
    return value
