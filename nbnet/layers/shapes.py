"""Layers that only change the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape


class Identity(Layer):
    """y = x: a branch that passes its input on."""

    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        return x, len(x) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        return self.check_gradient(dy, saved)


class Reshape(Layer):
    """The numbers of each example in the same order, in another shape.

    Args:
        shape: of one example, such as (4, 4, 16) or a number of features; one size may be -1, and follows from the others.
    """

    replayable = True

    def __init__(self, shape: int | Sequence[int]):
        super().__init__()
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        fits = all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and (n >= 1 or n == -1) for n in sizes)
        if not sizes or not fits or sizes.count(-1) > 1:
            raise ArgumentError(f"Reshape({shape!r}): expected the sizes of one example, such as (4, 4, 16), of which one may be -1")
        self.shape = tuple(map(int, sizes))

    def create(self, input_shape: Shape) -> Shape:
        known, size = math.prod(n for n in self.shape if n != -1), math.prod(input_shape)
        shape = tuple(size // known if n == -1 else n for n in self.shape)
        if math.prod(shape) != size or not size:
            raise ShapeError(f"Reshape({self.shape}) got inputs of shape {input_shape}: expected sizes whose product is {size}")
        return shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        return x.reshape(len(x), *self.output_shape), x.shape if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        return self.check_gradient(dy, saved[0]).reshape(saved)


class Permute(Layer):
    """The axes of each example in another order: Permute((3, 1, 2)) makes (C, H, W) of (H, W, C).

    Args:
        order: the axes of one example, from 1 as in Keras (axis 0 is the batch): axis i of y is axis order[i] of x.
    """

    replayable = True

    def __init__(self, order: Sequence[int]):
        super().__init__()
        axes = tuple(order) if isinstance(order, (tuple, list)) else ()
        if (
            not axes
            or not all(isinstance(a, (int, np.integer)) and not isinstance(a, bool) for a in axes)
            or sorted(axes) != list(range(1, len(axes) + 1))
        ):
            raise ArgumentError(f"Permute({order!r}): expected each axis of one example once, from 1, such as (3, 1, 2)")
        self.order = tuple(map(int, axes))

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.order):
            raise ShapeError(f"Permute({self.order}) got inputs of shape {input_shape}: expected {len(self.order)} axes")
        return tuple(input_shape[axis - 1] for axis in self.order)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        return self._permuted(x, self.order), len(x) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        return self._permuted(self.check_gradient(dy, saved), [self.order.index(axis) + 1 for axis in range(1, len(self.order) + 1)])

    def _permuted(self, x: Any, order: Sequence[int]) -> Any:
        """x with its axes in this order: each kernel moves a run of axes to its place, past those that come later."""
        axes = list(range(x.ndim))
        wanted = [0, *order]
        for i in range(x.ndim):
            at, end = axes.index(wanted[i]), i + 1
            if at == i:
                continue
            while at + end - i < x.ndim and wanted[end : end + 1] == [axes[at + end - i]]:
                end += 1
            past, moved = axes[i:at], axes[at : at + end - i]
            axes = axes[:i] + moved + past + axes[at + end - i :]
            x = self._moved(x, i, at, at + end - i)
        return x

    def _moved(self, x: Any, i: int, at: int, end: int) -> Any:
        """x with the axes from `at` to `end` before those from `i`."""
        sizes = x.shape
        before, past, moved, after = (math.prod(sizes[a:b]) for a, b in ((0, i), (i, at), (at, end), (end, len(sizes))))
        y = self.backend.empty((*sizes[:i], *sizes[at:end], *sizes[i:at], *sizes[end:]), x.dtype)
        self.backend.kernel("array.swap")(x.reshape(before, past, moved, after), y.reshape(before, moved, past, after))
        return y
