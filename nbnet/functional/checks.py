"""Checks of arrays and of window geometry, shared by the functional calls and the layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, BackendError, DTypeError, ShapeError
from nbnet.runtime.arrays import FLOATS, on_device
from nbnet.runtime.backend import Backend


def as_array(value: Any, name: str) -> np.ndarray:
    """value as an array: a list, a series or a tensor on the host becomes one.

    Raises:
        ShapeError: its rows have different shapes. DTypeError: its library refuses (a tensor with a gradient, or on a GPU).
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{name} is not an array: {error}; expected rows of equal shape") from None
    except (TypeError, RuntimeError) as error:
        raise DTypeError(f"{name} is not an array: {' '.join(str(error).split())}; expected a NumPy array") from None


def floats(
    x: Any, name: str, ndim: int | None = None, dtype: np.dtype | None = None, empty: bool = False, *, be: Backend | None = None
) -> Any:
    """x as a C-contiguous float array of this rank and dtype; `empty` allows one without rows.

    Args:
        be: the backend whose kernels will read it; None requires it on the host.
    Raises:
        ShapeError, DTypeError: it is not. BackendError: it is on the GPU, and the backend is not.
    """
    if type(x) is not np.ndarray and (be is None or not on_device(x)):
        x = np.asarray(x)
    if not x.shape:  # a number is one row
        x = x.reshape(1)
    if x.dtype not in FLOATS:
        raise DTypeError(f"{name} has dtype {x.dtype}, expected float32 or float64: convert it with {name}.astype('float32')")
    if dtype is not None and x.dtype != dtype:
        raise DTypeError(f"{name} has dtype {x.dtype}, expected {dtype}: all arrays of a call have the same dtype")
    if ndim is not None and x.ndim != ndim:
        raise ShapeError(f"{name} has shape {x.shape}, expected {ndim} axes{' (N, H, W, C)' if ndim == 4 else ''}")
    if x.size == 0 and not empty:
        raise ShapeError(f"{name} has shape {x.shape}: it is empty, expected at least one row")
    return np.ascontiguousarray(x) if be is None else be.place(x)


def shaped(x: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, *, be: Backend) -> np.ndarray:
    """x as a C-contiguous array of exactly this shape and dtype."""
    x = floats(x, name, dtype=dtype, empty=0 in shape, be=be)
    if x.shape != shape:
        raise ShapeError(f"{name} has shape {x.shape}, expected {shape}")
    return x


def from_training(saved: Any) -> None:
    """Check that backward was given what forward saved."""
    if saved is None:
        raise ArgumentError("saved is None: expected what forward returned with train=True; a pass without training saves nothing")


def shape_hint(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """How to fix an array of this shape where rows of `expected` are needed: the end of an error message, if it is clear."""
    if shape == expected:
        return "; one row alone is x[None]"
    if shape[1:] == expected[:-1] and expected[-1] == 1:
        return "; for images of one channel use x[..., None]"
    if len(expected) == 3 and shape[1:] == (expected[2], expected[0], expected[1]):
        return "; channels come last here: x.transpose(0, 2, 3, 1)"
    return ""


def epsilon(eps: Any) -> float:
    return number(eps, "eps", "a number that is at least 0", lambda eps: 0 <= eps < math.inf)


def output(array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, *, be: Backend) -> Any:
    """The caller's array for a parameter gradient, or a new one. It is small and lives long, so on the CPU it is not from the pool.

    Raises:
        BackendError, ShapeError, ArgumentError: the kernel cannot write to the caller's array.
    """
    if array is None:
        return be.empty(shape, dtype) if be.name == "cuda" else np.empty(shape, dtype)
    if on_device(array) != (be.name == "cuda"):
        raise BackendError(f"{name} is {'' if on_device(array) else 'not '}on the GPU, and the backend is {be.name!r}")
    fits = on_device(array) or array.flags.carray
    if array.shape != shape or array.dtype != dtype or not (fits or array.flags.c_contiguous):
        raise ShapeError(f"{name} has shape {array.shape} and dtype {array.dtype}, expected contiguous {shape} {dtype}")
    if not fits:
        wrong = "not aligned" if array.flags.writeable else "read-only"
        raise ArgumentError(f"{name} is {wrong}, expected an array to write to, as np.empty makes it")
    return array


def number(value: Any, name: str, expected: str, fits: Callable[[Any], bool]) -> float:
    """value as a float: a number, of Python or NumPy, in the range that `fits` accepts."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and fits(value):
        return float(value)
    raise ArgumentError(f"{name}={value!r}: expected {expected}")


def whole(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """value as an int: a whole number, of Python or NumPy, in its range."""
    fits = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if fits and least <= value and (most is None or value <= most):
        return int(value)
    raise ArgumentError(f"{name}={value!r}: expected a whole number, {f'at least {least}' if most is None else f'{least} to {most}'}")


def pair(value: Any, name: str) -> tuple[int, int]:
    """A positive size for both axes, from one number or two."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(isinstance(v, (int, np.integer)) and v >= 1 for v in values):
        raise ArgumentError(f"{name}={value!r}: expected a positive whole number, or two (height, width)")
    return int(values[0]), int(values[1])


def check_padding(padding: Any) -> None:
    if padding in ("same", "valid") or (isinstance(padding, (int, np.integer)) and not isinstance(padding, bool) and padding >= 0):
        return
    raise ArgumentError(f"padding={padding!r}: expected 'same', 'valid' or a number of pixels")


def window(length: int, size: int, stride: int, padding: str | int, axis: str) -> tuple[int, int]:
    """Output length and leading padding of a sliding window along one axis.

    "same": ceil(length / stride) outputs, the odd pixel of padding at the end (TensorFlow's rule); "valid": no padding;
    a number: that many pixels on both sides.
    """
    if padding == "same":
        out = -(-length // stride)
        return out, max(0, (out - 1) * stride + size - length) // 2
    before = 0 if padding == "valid" else int(padding)
    out = (length + 2 * before - size) // stride + 1
    if length + 2 * before < size:
        raise ShapeError(f"a window of {axis} {size} does not fit an image of {axis} {length} with padding {padding!r}: use padding='same'")
    return out, before
