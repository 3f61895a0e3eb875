"""Parameters, and the two flat arrays that hold the values and the gradients of all parameters of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.runtime.arrays import on_device, zeros_like
from nbnet.runtime.backend import Backend
from nbnet.runtime.watched import Watched

ALIGNMENT = 64  # bytes: a cache line; vector loads and the 16-byte views of the GPU need less


class Param(Watched):
    """One parameter of a layer. Write into its arrays in place; optimisers update only trainable parameters.

    Attributes:
        value, grad: arrays of the same shape and dtype (float32 or float64), NumPy or on the GPU.
        trainable: False freezes the parameter.
        regularizer: None, or a function of the value; the Trainer adds its result to the gradient (see nbnet.regularizers).
        layout, index: the flat arrays that `Layer.build` made, and the position in them; None for a parameter made alone.
    """

    __slots__ = ("grad", "index", "layout", "regularizer", "trainable", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.grad = zeros_like(value)
        self.trainable = True
        self.regularizer: Callable[[np.ndarray], np.ndarray] | None = None
        self.layout: FlatParameters | None = None
        self.index = 0

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """A copy has arrays of its own, in the layout that Layer.__setstate__ makes for all parameters of a copied model."""
        state = {name: getattr(self, name) for name in self.__slots__}
        return None, state | {"layout": None if self.layout is None or not self.layout.holds(self) else self.layout}

    def __repr__(self) -> str:
        return f"Param(shape={self.value.shape}, dtype={self.value.dtype}{'' if self.trainable else ', frozen'})"


class FlatArray(NamedTuple):
    """A flat array with one part per parameter."""

    flat: Any
    views: list[Any]  # in the shapes of the parameters


class FlatParameters:
    """All parameters of a model in one flat array of values and one of gradients, so that one kernel call can update many.

    Each parameter starts on a multiple of 64 bytes. The gaps between parameters are 0, and updates keep them 0.

    Args:
        params: become views of the flat arrays; their numbers stay the same. A parameter that appears twice is stored once.
        dtype: of the flat arrays.
        backend: where the arrays are.
    """

    def __init__(self, params: Iterable[Param], dtype: np.dtype, backend: Backend) -> None:
        unique = list(dict.fromkeys(params))
        self.backend, self.dtype = backend, dtype
        self.shapes = [param.value.shape for param in unique]
        self.bounds: list[tuple[int, int]] = []  # start and stop of each parameter
        step, stop = ALIGNMENT // dtype.itemsize, 0
        for shape in self.shapes:
            start = -(-stop // step) * step
            stop = start + math.prod(shape)
            self.bounds.append((start, stop))
        self.values, self.grads = self.zeros(), self.zeros()
        for index, (param, value, grad) in enumerate(zip(unique, self.values.views, self.grads.views)):
            value[...], grad[...] = param.value, param.grad
            param.value, param.grad, param.layout, param.index = value, grad, self, index

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy holds nothing: the copies of its parameters have arrays of their own, until a new layout takes them."""
        return FlatParameters, ((), self.dtype, self.backend)

    @staticmethod
    def gather(params: Iterable[Param], dtype: np.dtype, backend: Backend) -> None:
        """Give the parameters of a model one layout. Those whose arrays were replaced since they got a layout keep these."""
        params = list(params)
        if len({param.layout for param in params}) == 1 and all(param.layout is not None and param.layout.holds(param) for param in params):
            return  # built before
        FlatParameters._move(params, [param for param in params if param.layout is None or param.layout.holds(param)], dtype, backend)

    @staticmethod
    def renew(params: Iterable[Param], dtype: np.dtype, backend: Backend) -> None:
        """Give copied parameters a layout of their own, except those that had none."""
        params = list(params)
        FlatParameters._move(params, [param for param in params if param.layout is not None], dtype, backend)

    @staticmethod
    def _move(params: list[Param], candidates: list[Param], dtype: np.dtype, backend: Backend) -> None:
        """Make a layout for the candidates among the parameters. An array of several parameters stays one array."""
        arrays = [(param, name, getattr(param, name)) for param in params for name in ("value", "grad")]
        moving: dict[Param, None] = {}
        seen: set[int] = set()
        for param in candidates:
            ids = {id(param.value), id(param.grad)}
            if not ids & seen:
                moving[param] = None
            seen |= ids
        if not moving:
            return
        FlatParameters(moving, dtype, backend)
        moved = {id(array): getattr(param, name) for param, name, array in arrays if param in moving}
        for param, name, array in arrays:
            if param not in moving:
                setattr(param, name, moved.get(id(array), array))

    def zeros(self) -> FlatArray:
        """A long-lived flat array of zeros in this layout, for example for the state of an optimiser."""
        size = self.bounds[-1][1] if self.bounds else 0
        if self.backend.name == "cuda":
            flat = self.backend.zeros((size,), self.dtype)
        else:
            buffer = np.zeros(size + ALIGNMENT // self.dtype.itemsize, self.dtype)
            first = -buffer.ctypes.data % ALIGNMENT // self.dtype.itemsize
            flat = buffer[first : first + size]
        return FlatArray(flat, [flat[start:stop].reshape(shape) for (start, stop), shape in zip(self.bounds, self.shapes)])

    def holds(self, param: Param) -> bool:
        """Whether the parameter still has the arrays that this layout gave it."""
        if not self.shapes:  # a copy
            return False
        return param.value is self.values.views[param.index] and param.grad is self.grads.views[param.index]

    def run(self, arrays: Sequence[FlatArray], first: int, last: int) -> list[Any]:
        """The part of each flat array from parameter `first` up to and including parameter `last`."""
        start, stop = self.bounds[first][0], self.bounds[last][1]
        return [array.flat[start:stop] for array in arrays]


def check_ties(params: Mapping[str, Param]) -> None:
    """Copies keep one array of two parameters, but not two views of one memory.

    Raises:
        ArgumentError: two parameters share memory through different array objects.
    """
    found = [(f"{name}.{kind}", getattr(param, kind), param) for name, param in params.items() for kind in ("value", "grad")]
    for name, array, param in found:
        if on_device(array) or (param.layout is not None and param.layout.holds(param)):
            continue
        for other, shared, _ in found:
            if shared is not array and not on_device(shared) and np.shares_memory(array, shared):
                raise ArgumentError(
                    f"{name} and {other} are two views of one memory, which a copy would separate, expected one array object: "
                    "write b.value = a.value to tie parameters, or b.value = a.value.copy() to separate them"
                )
