"""What can go wrong in the Python half, one class per name.

The same names travel through the port as error classes (docs/internals/port.md), so the Erlang
side can decide what to do without reading sentences. Raised everywhere in the package; caught
only by the worker's runner and by the command lines, which print the message.
"""

from __future__ import annotations

import errno


class BaguetteError(Exception):
    """Base of every error a caller can act on; `name` is its class on the port."""

    name = "failure"


class BadInput(BaguetteError):
    """The request or payload itself is wrong: asking again cannot help."""

    name = "bad_input"


class WeightsError(BaguetteError):
    """A model directory that is missing, incomplete or does not fit its own config."""

    name = "bad_weights"


class NotHeld(BaguetteError):
    """The component is not loaded in this worker (any more): another holder may be asked."""

    name = "not_held"


class NotFinite(BaguetteError):
    """A computed tensor holds NaN or infinity: an error, never a picture."""

    name = "not_finite"


class OutOfMemory(BaguetteError):
    """The device could not hold the call; half the batch or another node may."""

    name = "out_of_memory"


class DeviceLost(BaguetteError):
    """The device itself failed; the process that sees this ends itself."""

    name = "device_lost"


class ClusterRefused(BaguetteError):
    """A cluster cannot be reached or did not draw; the message says why and what to do."""


# How allocations and mappings fail on a CPU: as plain RuntimeErrors.
_NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "could not create a primitive",
)


def port_class(error: Exception) -> str:
    """The class of any exception: our own name, or what torch's own errors mean."""
    if isinstance(error, BaguetteError):
        return error.name
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory.name
    if type(error).__name__ == "AcceleratorError":
        return DeviceLost.name
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return OutOfMemory.name
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
        return OutOfMemory.name
    return BaguetteError.name
