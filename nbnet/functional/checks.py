"""Checks of arrays and of window geometry, shared by the functional calls and the layers."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, BackendError, DTypeError, ShapeError
from nbnet.runtime.arrays import FLOATS, on_device
from nbnet.runtime.backend import Backend


def as_array(value: Any, name: str) -> np.ndarray:
    """value as an array: a list, a series or a tensor on the host becomes one.

    Raises:
        ShapeError: its rows have different shapes. DTypeError: its library refuses (a tensor with a gradient, or on a GPU).
        ArgumentError: it is a masked array, whose mask would be lost.
    """
    if type(value) is np.ndarray:
        return value
    if np.ma.is_masked(value):
        raise ArgumentError(
            f"{name} is an array with {np.ma.count_masked(value):,} masked values, expected one without a mask: for a number in "
            f"their place use {name}.filled(0)"
        )
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{name} is not an array: {error}; expected rows of equal shape") from None
    except (TypeError, RuntimeError, BufferError) as error:
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
    given = x
    if type(x) is not np.ndarray and (be is None or not on_device(x)):
        x = as_array(x, name)
    if not x.shape:  # a number is one row
        x = x.reshape(1)
    if x.dtype not in FLOATS:
        raise DTypeError(f"{name} has dtype {x.dtype}, expected float32 or float64{dtype_hint(x, in_code(given, name))}")
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


def in_code(value: Any, name: str) -> str:
    """How hints name an array: a list has no methods of arrays, and those of a table or series differ."""
    return name if isinstance(value, np.ndarray) else f"np.asarray({name})"


def shape_hint(shape: tuple[int, ...], expected: tuple[int, ...], x: str = "x") -> str:
    """How to fix an array of this shape where rows of `expected` are needed: the end of an error message, if it is clear.

    Args:
        x: how code names the array (see `in_code`).
    """
    *space, channels = expected
    size, image = math.prod(expected), len(expected) == 3
    last = ", ".join(map(str, expected))
    if shape == expected:
        return f"; one row alone is {x}[None]"
    if channels == 1 and shape == (*space,):
        return f"; one {'image without channels' if space else 'number alone'} is {x}[None, ..., None]"
    if channels == 1 and shape[1:] == (*space,):
        return f"; for {'images of one channel' if space else 'one number per row'} use {x}[..., None]"
    if image and shape[1:] == (channels, *space):
        return f"; channels come last here: {x}.transpose(0, 2, 3, 1)"
    if image and shape == (channels, *space):
        return f"; one row alone, and channels come last here: {x}.transpose(1, 2, 0)[None]"
    if image and channels > 1 and shape[1:] == (*space, 1):
        return f"; to repeat one channel use {x}.repeat({channels}, axis=-1)"
    if image and shape[-1:] == (size,) and len(shape) <= 2:
        first = ", ".join(map(str, (channels, *space)))
        other = "" if channels == 1 else f"; where channel follows channel use {x}.reshape(-1, {first}).transpose(0, 2, 3, 1)"
        return f"; for rows of pixels use {x}.reshape(-1, {last}){other}"
    if len(expected) == 1 and len(shape) > 1 and size in (math.prod(shape[1:]), math.prod(shape)):
        return f"; to make flat rows use {x}.reshape(-1, {size})"
    return ""


def dtype_hint(array: Any, x: str, dtype: Any = "float32", pixels: str | None = None) -> str:
    """How to make floats of an array with another dtype: the end of an error message, if it is clear.

    Args:
        x: how code names the array (see `in_code`). dtype: the float dtype that is needed.
        pixels: code that makes of 8-bit pixels what is needed; None where numbers are never pixels.
    """
    values, kind = np.asarray(array), array.dtype.kind
    use = f"{x}{'.real' if kind == 'c' else ''}.astype('{dtype}')"
    if kind not in "biufc":
        for value in values.flat:
            if not _parses(value):
                return f"; {(value.item() if isinstance(value, np.generic) else value)!r} is not a number"
        values = values.astype(np.float64)
    if pixels is None or kind == "c" or not values.size:
        return f"; use {use}"
    low, high = values.min(), values.max()
    if low >= 0 and high <= 255 and (kind in "iu" or (high > 1 and bool((values == np.floor(values)).all()))):
        return f"; for pixels from 0 to 255 use {pixels}, for other numbers {use}"
    if array.dtype == np.uint16:
        return f"; for 16-bit pixels use {use} / 65535, for other numbers {use}"
    return f"; use {use}"


def _parses(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def is_number(value: Any) -> bool:
    """Whether a function of the user's returned one number: of Python, NumPy or the GPU."""
    return type(value) is float or isinstance(value, Real) or (getattr(value, "shape", None) == () and value.dtype.kind in "fiu")


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


def path(value: Any, name: str, example: str) -> Path:
    """value as a Path: a str or an object of pathlib."""
    if isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str) and os.fspath(value):
        return Path(value)
    raise ArgumentError(f"{name}={value!r}: expected a path, such as {example!r}")


def takes(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    """Whether a function can be called so, as far as its signature says."""
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def whole(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """value as an int: a whole number, of Python or NumPy, in its range."""
    if _is_whole(value) and least <= value and (most is None or value <= most):
        return int(value)
    raise ArgumentError(f"{name}={value!r}: expected a whole number, {f'at least {least}' if most is None else f'{least} to {most}'}")


def pair(value: Any, name: str) -> tuple[int, int]:
    """A positive size for both axes, from one number or two."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(values) != 2 or not all(_is_whole(v) and v >= 1 for v in values):
        raise ArgumentError(f"{name}={value!r}: expected a positive whole number, or two (height, width)")
    return int(values[0]), int(values[1])


Sides = tuple[tuple[int, int], tuple[int, int]]
Padding = str | Sides


def check_padding(padding: Any) -> Padding:
    """padding as "same", "valid" or ((top, bottom), (left, right)): from one of these, one number, or one for each axis."""
    return padding if is_named(padding) else sides(padding, "padding", "'same', 'valid', a number of pixels")


def is_named(padding: Any) -> bool:
    """Whether padding is a name, not numbers."""
    return isinstance(padding, str) and padding in ("same", "valid")


def padding_of_steps(padding: Any, *names: str) -> Padding:
    """padding of a sequence as that of an image of height 1: "same", "valid", a number of steps or (before, after).

    names: others that the caller takes, for the message.
    """
    if is_named(padding):
        return padding
    try:
        return check_padding((0, padding))
    except ArgumentError:
        expected = ", ".join(map(repr, ("same", "valid", *names)))
        raise ArgumentError(f"padding={padding!r}: expected {expected}, a number of steps or (before, after)") from None


def sides(value: Any, name: str, expected: str = "a number of pixels", least: float = 0) -> Sides:
    """((top, bottom), (left, right)) from two pairs of whole numbers, one number for each axis, or one; each at least `least`."""
    axes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    pairs = tuple(tuple(axis) if isinstance(axis, (tuple, list)) else (axis, axis) for axis in axes)
    if len(pairs) != 2 or not all(len(pair) == 2 and all(_is_whole(n) and n >= least for n in pair) for pair in pairs):
        raise ArgumentError(f"{name}={value!r}: expected {expected}, (height, width) or ((top, bottom), (left, right))")
    (top, bottom), (left, right) = pairs
    return (int(top), int(bottom)), (int(left), int(right))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def each_axis(padding: Padding) -> Any:
    """The padding of the height and that of the width, as `window` takes them."""
    return (padding, padding) if isinstance(padding, str) else padding


def window(
    length: int, size: int, stride: int, padding: str | tuple[int, int], axis: str, dilation: int = 1, ceil_mode: bool = False
) -> tuple[int, int]:
    """Output length and leading padding of a sliding window along one axis.

    Args:
        padding: "same": ceil(length / stride) outputs, the odd pixel of padding at the end (TensorFlow's rule); "valid": no padding;
            or the pixels before and after the image.
        dilation: the distance of the window's pixels.
        ceil_mode: whether a last window may reach beyond the padding, if it starts in the image or in the padding before it (PyTorch's
            rule).
    """
    extent = (size - 1) * dilation + 1
    if padding == "same":
        if size > 1 and dilation > length:
            raise ShapeError(
                f"a dilation of {dilation} is larger than the {axis} of the image, {length}: expected at most {length} with padding='same'"
            )
        out = -(-length // stride)
        return out, max(0, (out - 1) * stride + extent - length) // 2
    before, after = (0, 0) if isinstance(padding, str) else padding
    space = length + before + after - extent
    if space < 0:
        of = f"{size} with dilation {dilation}" if dilation > 1 else str(size)
        raise ShapeError(f"a window of {axis} {of} does not fit an image of {axis} {length} with padding {padding!r}: use padding='same'")
    out = (-(-space // stride) if ceil_mode else space // stride) + 1
    if ceil_mode and (out - 1) * stride >= length + before:
        out -= 1
    return out, before
