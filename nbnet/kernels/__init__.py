"""Kernels: arrays in, arrays out. Every result and every scratch array is passed in by the caller.

An operation is a folder with four modules: `__init__` (the contract), `reference` (NumPy), `cpu` (Numba, serial and parallel) and
`cuda`. What operations share is in `cpu`, `gpu` and the modules directly in this folder. One rule finds a kernel:

    load("batchnorm.moments", "numpy")     ->  nbnet.kernels.batchnorm.reference.moments
    load("batchnorm.moments", "serial")    ->  nbnet.kernels.batchnorm.cpu.moments_serial
    load("batchnorm.moments", "parallel")  ->  nbnet.kernels.batchnorm.cpu.moments_parallel
    load("batchnorm.moments", "cuda")      ->  nbnet.kernels.batchnorm.cuda.moments
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import config

from nbnet.errors import BackendError, KernelError, unknown

OPERATIONS = (
    "batchnorm",
    "groupnorm",
    "dropout",
    "conv2d",
    "depthwise",
    "dense",
    "pool",
    "resample",
    "activation",
    "loss",
    "optimizer",
    "array",
    "augment",
)
_MODULES = {"numpy": ("reference", ""), "serial": ("cpu", "_serial"), "parallel": ("cpu", "_parallel"), "cuda": ("cuda", "")}
BACKENDS = tuple(_MODULES)


@cache
def load(op: str, backend: str) -> Callable[..., Any]:
    """Return the kernel of one operation on one backend, compiled on its first call.

    Args:
        op: operation and function, for example "batchnorm.moments".
        backend: one of numpy, serial, parallel, cuda.
    Raises:
        BackendError: the backend is unknown, or needs the compiler, which NUMBA_DISABLE_JIT turns off.
        KernelError: the operation has no such function, or the backend lacks it; the message lists what exists.
    """
    if backend not in _MODULES:
        raise BackendError(unknown("backend", backend, BACKENDS))
    check_compiler(backend)
    operation, _, function = op.partition(".")
    if operation not in OPERATIONS:
        raise KernelError(unknown("operation", operation, OPERATIONS))
    name, suffix = _MODULES[backend]
    path = f"nbnet.kernels.{operation}.{name}"
    if importlib.util.find_spec(path) is None:
        raise KernelError(f"operation {operation!r} has no kernels for backend {backend!r} yet: use numpy, serial or parallel")
    module = importlib.import_module(path)
    kernel = getattr(module, function + suffix, None)
    if kernel is None:
        raise KernelError(unknown(f"kernel of {operation!r} on backend {backend!r}", function, functions(operation)))
    return kernel


def check_compiler(backend: str) -> None:
    """Raise a BackendError if Numba's compiler is off and this backend needs it."""
    if config.DISABLE_JIT and backend != "numpy":  # type: ignore[attr-defined]
        raise BackendError(
            f"got backend {backend!r} with NUMBA_DISABLE_JIT=1, expected Numba's compiler: use backend='numpy', or unset the variable"
        )


def functions(operation: str) -> list[str]:
    """The public functions of an operation, as its `reference` module defines them."""
    module = importlib.import_module(f"nbnet.kernels.{operation}.reference")
    found = {name: getattr(module, name) for name in dir(module) if name[0] != "_"}
    return [name for name, value in found.items() if callable(value) and value.__module__ == module.__name__]
