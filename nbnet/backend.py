"""A backend makes arrays, recycles their memory and finds kernels. There is no global default: each is asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config

from nbnet.errors import BackendError, DTypeError, unknown
from nbnet.kernels import BACKENDS, load
from nbnet.memory import Pool
from nbnet.threads import parallel_kernel

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Backend:
    """One way to run kernels: `numpy` (the readable definition), `serial` or `parallel` (Numba).

    Get one with `get_backend(name)`; it is the same object each time, so that all models share its memory pool.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool = Pool()

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    @property
    def threads(self) -> int:
        """How many threads a kernel may run on at most: kernels that need scratch for each take so much of it."""
        return config.NUMBA_NUM_THREADS if self.name == "parallel" else 1  # type: ignore[attr-defined]

    def kernel(self, op: str) -> Callable[..., Any]:
        """The kernel of an operation, for example kernel("conv2d.forward")."""
        return parallel_kernel(op) if self.name == "parallel" else load(op, self.name)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An uninitialised array, on recycled memory."""
        return self.pool.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        array = self.pool.empty(shape, dtype)
        array.fill(0)
        return array


@cache
def _make(name: str) -> Backend:
    return Backend(name)


def get_backend(backend: str | Backend) -> Backend:
    """The backend of that name.

    Raises:
        BackendError: there is no such backend, or it cannot run here.
    """
    if isinstance(backend, Backend):
        return backend
    if backend not in BACKENDS:
        raise BackendError(unknown("backend", backend, BACKENDS))
    if backend == "cuda":
        raise BackendError("backend 'cuda' is not part of this version: use 'parallel', 'serial' or 'numpy'")
    return _make(backend)


def float_dtype(dtype: Any) -> np.dtype:
    """The dtype, if nbnet computes in it.

    Raises:
        DTypeError: it is neither float32 nor float64.
    """
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in FLOATS:
        raise DTypeError(f"dtype {dtype!r}: nbnet computes in 'float32' or 'float64'")
    return wanted
