"""Numbers on their way between ranks: as they are, or rounded to 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, unknown


class Wire(NamedTuple):
    """How gradients are sent."""

    dtype: Any
    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]  # to float32


def _to_float16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper half of each float32, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def _from_bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


WIRES = {
    "float16": Wire(np.float16, _to_float16, lambda values: values.astype(np.float32)),
    "bfloat16": Wire(np.uint16, _to_bfloat16, _from_bfloat16),
}


def get(name: Any) -> Wire | None:
    """The wire of that name; None sends numbers as they are. Raises ArgumentError: there is none."""
    if name is None:
        return None
    if not isinstance(name, str) or name not in WIRES:
        raise ArgumentError(unknown("wire", name, WIRES))
    return WIRES[name]
