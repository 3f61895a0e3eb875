"""Gradients are clipped by their global norm without a wait of the host, which never sees the norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import elementwise, load, multiply4, run, store


@kernel
def _factor(totals, count, limit, factor):
    """One thread: limit / norm where the norm is above the limit, else 1."""
    total = 0.0
    for i in range(count):
        total += totals[2 * i]
    norm = math.sqrt(total)
    factor[0] = limit / norm if norm > limit else 1.0


@kernel
def _scale_by(a, factor, size):
    at, f = 4 * cuda.grid(1), a.dtype.type(factor[0])  # type: ignore[call-arg]
    if factor[0] != 1.0:
        store(a, at, size, multiply4(load(a, at, size), (f, f, f, f)))


def clip(arrays: Sequence[Any], limit: float, squares: Callable[[Any, Any], None]) -> None:
    """Scale flat arrays in place so that the L2 norm of all of them is at most `limit`. squares: the kernel array.squares."""
    totals = device.pool().empty((2 * len(arrays),), np.float64)  # every second is used: views begin at multiples of 16 bytes
    factor = device.pool().empty((1,), np.float64)
    for i, array in enumerate(arrays):
        squares(array, totals[2 * i : 2 * i + 1])
    run(_factor, 1, 1, totals, len(arrays), float(limit), factor)
    for array in arrays:
        elementwise(_scale_by, array.size, array, factor, array.size)
