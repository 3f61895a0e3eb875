"""Checks of what layers are built for, and of one or several inputs."""

from __future__ import annotations

import math
import operator
import sys
from typing import Any

import numpy as np

from nbnet.errors import ShapeError

Shape = tuple[int, ...]  # of one example; of several inputs or outputs, the tuple of their shapes


def checked(input_shape: Any) -> Any:
    """The shape of one input as a tuple, or the tuple of the shapes of several."""
    shape: tuple[Any, ...] = tuple(input_shape) if np.iterable(input_shape) else ()
    nested = bool(shape) and all(isinstance(part, (tuple, list)) for part in shape)
    sizes = [n for part in shape for n in part or (0,)] if nested else shape
    if not sizes or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ShapeError(f"input_shape={input_shape!r}: expected the positive sizes of one example, such as (28, 28, 1)")
    if nested and len(shape) == 1:
        raise ShapeError(f"input_shape={input_shape!r} is a tuple of one shape: for one input write {tuple(shape[0])}")
    return plain(shape)


def plain(shape: Any) -> Any:
    """The shape, or the tuple of several, with Python's whole numbers: NumPy's would not be known as a shape."""
    return tuple([tuple(map(operator.index, part)) if isinstance(part, (tuple, list)) else operator.index(part) for part in shape])


def check_one(x: Any, shape: Shape, name: str) -> None:
    """Check that x is not several inputs, for a layer that takes one of this shape. (A tuple of rows is an array.)"""
    if isinstance(x, (tuple, list)) and x and getattr(x[0], "ndim", 0) > len(shape):
        raise ShapeError(f"layer {name} takes one input, got {len(x)}: expected one array (N, {', '.join(map(str, shape))})")


def check_lengths(arrays: tuple[Any, ...]) -> None:
    """Check that several inputs have one row each for every example."""
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ShapeError(f"the inputs have {', '.join(map(str, lengths))} rows: expected one row of each input for every example")


def check_size(shape: Shape) -> None:
    """NumPy raises a MemoryError for an array that is larger than the free memory, but a ValueError beyond the address space."""
    if math.prod(shape) > sys.maxsize // np.dtype(np.float64).itemsize:
        raise MemoryError
