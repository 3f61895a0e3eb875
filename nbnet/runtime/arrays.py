"""The dtypes that nbnet takes, and what an array is to its kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.errors import DTypeError, ShapeError

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
X_DTYPES = (np.dtype(np.uint8), *FLOATS)  # of data


def on_device(array: Any) -> bool:
    """Whether an array is on the GPU. NumPy cannot operate on such an array directly; np.asarray copies it to the host."""
    return getattr(type(array), "on_device", False)


def several(shape: Any) -> bool:
    """Whether this is the tuple of the shapes of several inputs or outputs, and not the shape of one."""
    return bool(shape) and type(shape[0]) is tuple


def each(function: Callable[..., Any], *values: Any) -> Any:
    """function(*values) of arrays or shapes; of tuples of them (several inputs or outputs) the tuple of the results."""
    if type(values[0]) is not tuple or (values[0] and isinstance(values[0][0], int)):
        return function(*values)
    return tuple([function(*parts) for parts in zip(*values)])


def first(value: Any) -> Any:
    """An array itself; of several inputs or outputs the first, which has as many rows as the others."""
    return value[0] if type(value) is tuple else value


def for_kernels(array: Any) -> np.ndarray:
    """The array itself where kernels may take it, else a copy.

    Numba compiles a kernel for each kind of array, which takes seconds. So kernels get arrays of one kind only: C-contiguous, aligned and
    writeable. (An array that shares the memory of a read-only one would have to stay read-only wherever it is returned.)
    """
    array = np.ascontiguousarray(array)
    return array if array.flags.carray else array.copy()


def zeros_like(array: Any) -> Any:
    """A long-lived array of zeros beside another one."""
    zeros = array.copy()
    zeros[...] = 0
    return zeros


def float_dtype(dtype: Any) -> np.dtype:
    """The dtype, if nbnet computes in it.

    Raises:
        DTypeError: it is neither float32 nor float64.
    """
    with contextlib.suppress(TypeError, ValueError, SyntaxError):  # NumPy raises all of them for names that are none
        if dtype is not None and np.dtype(dtype) in FLOATS:  # None is float64 for NumPy, and equal to it
            return np.dtype(dtype)
    raise DTypeError(f"dtype {dtype!r}: nbnet computes in 'float32' or 'float64'")


def take(x: Any, rows: Any) -> Any:
    """Rows of an array, or of each array of a tuple."""
    return x[rows] if type(x) is not tuple else tuple([part[rows] for part in x])


def in_dtype(batch: Any, dtype: np.dtype) -> Any:
    """A batch in the float dtype of a model; uint8, which the model scales, stays."""
    if type(batch) is tuple:
        return tuple([in_dtype(part, dtype) for part in batch])
    return batch.astype(dtype, copy=False) if batch.dtype in FLOATS else batch


def to_float(batch: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write a batch into a float array: uint8 is divided by 255, floats are copied or cast.

    Args:
        batch: any shape, uint8, float32 or float64. out: the same shape, float32 or float64; overwritten.
    Returns:
        out.
    Raises:
        ShapeError, DTypeError: batch or out does not fit.
    """
    if batch.shape != out.shape:
        raise ShapeError(f"out has shape {out.shape}: expected the batch's shape, {batch.shape}")
    if batch.dtype not in X_DTYPES:
        raise DTypeError(f"batch has dtype {batch.dtype}: expected uint8, float32 or float64")
    if out.dtype not in FLOATS:
        raise DTypeError(f"out has dtype {out.dtype}: expected float32 or float64")
    if batch.dtype == np.uint8:
        np.divide(batch, out.dtype.type(255), out=out)
    else:
        np.copyto(out, batch, casting="same_kind")
    return out
