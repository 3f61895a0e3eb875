"""Models that branch: containers that give their input to several branches, and join what these return.

    Concat     y = the branches' channels, one after the other       Add       y = a + b + ...
    Multiply   y = a * b * ..., also one gate for each channel       Parallel  y = (a, b, ...)
    Residual   y = body(x) + shortcut(x)

A branch is a layer, or a list of layers; an empty list is the identity. Where x is an array, each branch gets it, and its gradient is
the sum of theirs. Where x is a tuple, of the inputs of a model or from Parallel, the i-th branch gets x[i]; without branches, its arrays
themselves are joined. Backward runs the branches in reverse order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape
from nbnet.layers.containers import Container, Context
from nbnet.layers.sequential import Sequential
from nbnet.runtime.arrays import first, several


class Branches(Container):
    """Base of containers that branch. A subclass defines

        _join_shapes(shapes, names) -> output_shape
        _join(ys) -> y, joined                           # joined: what _gradient needs
        _gradient(dy, joined, i) -> the gradient of ys[i]

    Args:
        branches: layers, or lists of layers. None: x is a tuple of arrays, which are joined.
    """

    replayable = True

    def __init__(self, branches: Iterable[Layer | Iterable[Layer]] | None = None):
        super().__init__()
        name = type(self).__name__
        if isinstance(branches, Layer) or (branches is not None and not isinstance(branches, Iterable)):
            raise ArgumentError(f"{name} got {branches!r}, expected a list: nb.{name}([nb.Identity(), nb.Conv2D(8, 3)])")
        branches = None if branches is None else list(branches)
        for branch in branches or ():
            if not isinstance(branch, Iterable) and not isinstance(branch, Layer):
                raise ArgumentError(f"{name} got the branch {branch!r}, expected a layer such as nb.Conv2D(8, 3), or a list of layers")
        self.branches = [branch if isinstance(branch, Layer) else Sequential(branch) for branch in branches or ()]
        if branches is not None and len(self.branches) < 2:
            raise ArgumentError(f"{name} got a list of {len(self.branches)} branches, expected at least 2")

    def _layers(self) -> Sequence[Layer]:
        return self.branches

    def _make(self, input_shape: Shape, context: Context) -> Shape:
        name, count = type(self).__name__, len(self.branches)
        if count and several(input_shape) and len(input_shape) != count:
            raise ShapeError(
                f"{name} has {count} branches, got {len(input_shape)} inputs, of shapes {input_shape}: expected one for each branch, or "
                "one for all"
            )
        if not count and not several(input_shape):
            raise ShapeError(f"{name}() without branches joins several inputs, got one, of shape {input_shape}: write {name}([branches])")
        shapes: Any = input_shape if several(input_shape) else (input_shape,) * count
        names = [name for name, _ in self._children()] or [f"input {i}" for i in range(len(shapes))]
        if count:
            shapes = tuple([branch._build(shape, context.child(at)) for branch, shape, at in zip(self.branches, shapes, names)])
        for at, shape in zip(names, shapes):
            if several(shape):
                raise ShapeError(f"{name}: {at} gives {len(shape)} outputs, of shapes {shape}: expected one, so join them in the branch")
        self._arrange()
        return self._join_shapes(shapes, names)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        if not self.steps:
            y, joined = self._join(x)
            return y, (len(y), (), joined) if train else None
        xs = x if type(x) is tuple else (x,) * len(self.steps)
        results = [step.forward(one, train) for step, one in zip(self.steps, xs)]
        y, joined = self._join([y for y, _ in results])
        return y, (len(first(y)), [saved for _, saved in results], joined) if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        rows, of_steps, joined = saved
        dy = self._check_gradient(dy, rows)
        if not self.steps:
            return tuple([self._gradient(dy, joined, i) for i in range(len(self.input_shape or ()))]) if need_dx else None
        dxs: list[Any] = [None] * len(self.steps)
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            if need_dx or step.params:
                held = self._hold(i) if self._shared else ()
                dxs[i] = step.backward(self._gradient(dy, joined, i), of_steps[i], need_dx)
                self._add_held(held)
        if not need_dx:
            return None
        return tuple(dxs) if several(self.input_shape) else reduce(self._add, dxs)

    def _check_gradient(self, dy: Any, rows: int) -> Any:
        shapes: Any = self.output_shape
        if not several(shapes):
            return checks.shaped(dy, "dy", (rows, *shapes), self.dtype, be=self.backend)
        if not isinstance(dy, (tuple, list)) or len(dy) != len(shapes):
            count = len(shapes)
            raise ShapeError(
                f"layer {self.name} has {count} outputs: expected dy as a tuple of {count} gradients, got "
                f"{len(dy) if isinstance(dy, (tuple, list)) else type(dy).__name__}"
            )
        return tuple([checks.shaped(one, "dy", (rows, *shape), self.dtype, be=self.backend) for one, shape in zip(dy, shapes)])

    def _add(self, a: Any, b: Any) -> Any:
        total = self.backend.empty(a.shape, a.dtype)
        self.backend.kernel("array.add")(a.reshape(-1), b.reshape(-1), total.reshape(-1))
        return total

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Shape:
        """The shape of y. Raises ShapeError: the branches do not fit each other."""
        raise NotImplementedError

    def _join(self, ys: Sequence[Any]) -> tuple[Any, Any]:
        raise NotImplementedError

    def _gradient(self, dy: Any, joined: Any, i: int) -> Any:
        raise NotImplementedError


class Parallel(Branches):
    """y = (a, b, ...): the outputs of the branches as a tuple, which Concat(), Add() or Multiply() joins later.

    A model that ends with it has several outputs. With one layer in several branches, such as Parallel([trunk, trunk]), they share its
    parameters: a siamese network   (Bromley et al. 1993).

    Args:
        branches: layers, or lists of layers.
    """

    replayable = True

    def __init__(self, branches: Iterable[Layer | Iterable[Layer]]):
        super().__init__(branches)

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Any:
        return tuple(shapes)

    def _join(self, ys: Sequence[Any]) -> tuple[Any, Any]:
        return tuple(ys), ()

    def _gradient(self, dy: Any, joined: Any, i: int) -> Any:
        return dy[i]


class Concat(Branches):
    """The outputs of the branches side by side along the last axis, the channels: (H, W, C1), (H, W, C2) -> (H, W, C1 + C2).

    Args:
        branches: layers, or lists of layers; None joins the arrays of a tuple.
    """

    replayable = True

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Shape:
        for name, shape in zip(names, shapes):
            if shape[:-1] != shapes[0][:-1]:
                raise ShapeError(
                    f"Concat: {names[0]} gives {shapes[0]} and {name} gives {shape}: expected the same sizes in all axes but the last, "
                    "the channels"
                )
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def _join(self, ys: Sequence[Any]) -> tuple[Any, Any]:
        y = self.backend.empty((len(ys[0]), *self.output_shape), self.dtype)
        widths, at = [part.shape[-1] for part in ys], 0
        for part, width in zip(ys, widths):
            self.backend.kernel("array.copy_columns")(part.reshape(-1, width), 0, y.reshape(-1, y.shape[-1]), at, width)
            at += width
        return y, widths

    def _gradient(self, dy: Any, joined: Any, i: int) -> Any:
        width, at = joined[i], sum(joined[:i])
        gradient = self.backend.empty((*dy.shape[:-1], width), self.dtype)
        self.backend.kernel("array.copy_columns")(dy.reshape(-1, dy.shape[-1]), at, gradient.reshape(-1, width), 0, width)
        return gradient


class Add(Branches):
    """The sum of the outputs of the branches, of equal shapes.

    Args:
        branches: layers, or lists of layers; None joins the arrays of a tuple.
    """

    replayable = True

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Shape:
        for name, shape in zip(names, shapes):
            if shape != shapes[0]:
                raise ShapeError(f"Add: {names[0]} gives {shapes[0]} and {name} gives {shape}: expected equal shapes")
        return shapes[0]

    def _join(self, ys: Sequence[Any]) -> tuple[Any, Any]:
        return reduce(self._add, ys), ()

    def _gradient(self, dy: Any, joined: Any, i: int) -> Any:
        return dy


class Residual(Add):
    """y = body(x) + shortcut(x)   (He, Zhang, Ren and Sun 2016).

    Args:
        body: a layer, or a list of layers.
        shortcut: a layer or a list of layers; None is the identity.
    """

    replayable = True

    def __init__(self, body: Layer | Iterable[Layer], shortcut: Layer | Iterable[Layer] | None = None):
        super().__init__([body, () if shortcut is None else shortcut])

    @property
    def body(self) -> Layer:
        return self.branches[0]

    @property
    def shortcut(self) -> Layer:
        return self.branches[1]

    def _children(self) -> list[tuple[str, Layer]]:
        return [("body", self.body), ("shortcut", self.shortcut)]

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Shape:
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"Residual: the body gives {shapes[0]} and the shortcut {shapes[1]}; give the shortcut a Conv2D(filters, 1, stride) that "
                "fits"
            )
        return shapes[0]


class Multiply(Branches):
    """The product of the outputs of the branches: of equal shapes, or (C,) or (1, 1, C), one number for each channel, beside (H, W, C).

    Squeeze and excitation   (Hu, Shen and Sun 2018):

        nb.Multiply([nb.Identity(), [nb.GlobalAvgPool2D(), nb.Dense(4), nb.ReLU(), nb.Dense(64), nb.Sigmoid()]])

    Args:
        branches: layers, or lists of layers; None joins the arrays of a tuple.
    """

    replayable = True

    def _join_shapes(self, shapes: Sequence[Shape], names: Sequence[str]) -> Shape:
        largest = max(range(len(shapes)), key=lambda i: (math.prod(shapes[i]), len(shapes[i])))
        full = shapes[largest]
        for name, shape in zip(names, shapes):
            if shape not in (full, full[-1:], (*[1] * (len(full) - 1), full[-1])):
                raise ShapeError(
                    f"Multiply: {names[largest]} gives {full} and {name} gives {shape}: expected equal shapes, or ({full[-1]},), one "
                    "number for each channel"
                )
        return full

    def _join(self, ys: Sequence[Any]) -> tuple[Any, Any]:
        rows = [y.reshape(len(y), -1, y.shape[-1]) for y in ys]  # (N, M, C), or (N, 1, C)
        y = reduce(self._product, rows)
        return y.reshape(len(y), *self.output_shape), (rows, [y.shape for y in ys])

    def _gradient(self, dy: Any, joined: Any, i: int) -> Any:
        rows, shapes = joined
        dy = dy.reshape(len(dy), -1, dy.shape[-1])
        others = reduce(self._product, rows[:i] + rows[i + 1 :])
        if rows[i].shape == dy.shape:
            return self._product(dy, others).reshape(shapes[i])
        gradient = self.backend.empty(shapes[i], self.dtype)
        self.backend.kernel("array.multiply_sum")(dy, others, gradient.reshape(len(dy), -1))
        return gradient

    def _product(self, a: Any, b: Any) -> Any:
        """a * b, of shapes (N, M, C) or (N, 1, C)."""
        if a.shape[1] < b.shape[1]:
            a, b = b, a
        y = self.backend.empty(a.shape, a.dtype)
        if a.shape == b.shape:
            self.backend.kernel("array.multiply")(a.reshape(-1), b.reshape(-1), y.reshape(-1))
        else:
            self.backend.kernel("array.multiply_rows")(a, b.reshape(len(b), -1), y)
        return y
