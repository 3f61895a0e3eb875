"""Tracing: the kernel calls of a prediction become one program of machine code (nbnet.kernels.cpu.program).

What does not depend on x is computed once, while the calls are traced: the numbers that a batch norm normalises by, and the transformed
weights of a convolution. All other arrays get places in one workspace, where arrays that are not used at the same time share memory. So a
program has no memory of its own: each thread that runs it brings a workspace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from nbnet.kernels.cpu.numba_private import overload
from nbnet.kernels.cpu.program import Call, Place, compile_program
from nbnet.runtime.backend import Backend, channelwise_kernel
from nbnet.runtime.recording import copy_on
from nbnet.runtime.replay import BACKENDS
from nbnet.runtime.stage import Stage

ALIGNMENT = 64  # bytes: a vector register, and a line of the cache
READY = {"conv2d.forward": 11}  # the argument that says that the array before it holds the transformed weights already
X, WORKSPACE = 0, 1  # arguments of a program


class NotTraceable(Exception):
    """A stage computes with something else than kernels."""


class Region:
    """Memory that one array was made on, and which calls use it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # keeps the memory
        self.start = array.ctypes.data
        self.end = self.start + array.nbytes
        self.size = -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        self.constant = False  # it was written by a call that does not depend on x
        self.first: Any = None  # the first of the program's calls that uses it
        self.last = -1
        self.offset = 0

    @property
    def varies(self) -> bool:
        return self.first is not None


class Tracer:
    """A backend around another one that makes every call, and keeps those that depend on x. All arrays live as long as it does."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.threads = backend.name, backend.threads
        self.place, self.host, self.no_bias = backend.place, backend.host, backend.no_bias
        self.regions: list[Region] = []
        self.calls: list[Call] = []

    def input(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The array that stands for x."""
        x = self.empty(shape, dtype)
        x[...] = 0
        self.regions[-1].first = 0
        return x

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        array = memory[start : start + size].view(dtype).reshape(shape)
        self.regions.append(Region(array))
        return array

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        raise NotTraceable("zeros are written without a kernel")

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        return [self.empty((size,), dtype) for _ in range(count)]

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.empty(shape, dtype)

    def kernel(self, op: str) -> Callable[..., Any]:
        return partial(self._call, READY.get(op), self.backend.kernel(op))

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        self._call(None, function, *args)

    def channelwise(self, function: Callable[..., tuple], outputs: Any, *args: Any, clamp: bool = False) -> None:
        self._call(None, channelwise_kernel(function, outputs, args, clamp), *outputs, *args)

    def _call(self, ready: int | None, function: Callable[..., Any], *args: Any) -> None:
        function(*args)
        regions = self._regions(args)
        if not any(region.varies for region in regions):
            for region in regions:
                region.constant = True
            return
        if not hasattr(function, "overloads"):
            raise NotTraceable(f"{getattr(function, '__name__', function)} is no kernel")
        if ready is not None:
            args = (*args[:ready], True, *args[ready + 1 :])
            for region in self._regions(args[ready - 1 : ready]):
                region.constant = True
        for region in regions:
            if not region.constant:
                region.first = len(self.calls) if region.first is None else region.first
                region.last = len(self.calls)
        self.calls.append(Call(overload(function, args), args))

    def _regions(self, args: tuple[Any, ...]) -> list[Region]:
        return [region for region in map(self._region, _arrays(args)) if region is not None]

    def _region(self, array: np.ndarray) -> Region | None:
        """The region that an array is on. An array without numbers is on none: it may start where another ends."""
        start = array.ctypes.data
        return next((each for each in self.regions if each.start <= start < each.end), None) if array.size else None

    def program(self, y: np.ndarray) -> Program:
        """The calls so far as a program whose result is y."""
        x, of_y = self.regions[0], self._region(y)
        if of_y is None or not of_y.varies:
            raise NotTraceable("the output does not depend on x")
        of_y.last = len(self.calls)
        size = _lay_out([region for region in self.regions if region.varies and not region.constant and region is not x])
        calls = [call._replace(args=tuple(map(self._placed, call.args))) for call in self.calls]
        return Program(compile_program(calls), size, self._placed(y))

    def _placed(self, arg: Any) -> Any:
        """An argument when the program runs: arrays that depend on x have places, and are not kept."""
        if type(arg) is tuple:
            return tuple(map(self._placed, arg))
        region = self._region(arg) if isinstance(arg, np.ndarray) else None
        if region is None or region.constant:
            return arg
        base, start = (X, 0) if region is self.regions[0] else (WORKSPACE, region.offset)
        return Place(base, start + arg.ctypes.data - region.start, arg.shape, arg.strides, arg.itemsize)


def _arrays(args: tuple[Any, ...]) -> list[np.ndarray]:
    """The arrays among arguments, and in tuples among them."""
    return [array for arg in args for array in (arg if type(arg) is tuple else (arg,)) if isinstance(array, np.ndarray)]


def _lay_out(regions: list[Region]) -> int:
    """Give each region the first place that no other one needs at the same time; return the size of all, in bytes."""
    placed: list[Region] = []
    for region in sorted(regions, key=lambda each: -each.size):
        region.offset = 0
        for other in sorted(placed, key=lambda each: each.offset):
            at_once = other.first <= region.last and region.first <= other.last
            if at_once and other.offset < region.offset + region.size and region.offset < other.offset + other.size:
                region.offset = other.offset + other.size
        placed.append(region)
    return max((region.offset + region.size for region in regions), default=0)


class Program(NamedTuple):
    """A prediction for batches of one shape."""

    run: Callable[[int, int], None]  # (address of x, address of a workspace)
    workspace: int  # its size in bytes
    y: Place  # of the result, after run


def trace(stage: Stage, shape: tuple[int, ...], backend: Backend | None = None) -> Program:
    """The forward(train=False) of a built stage for batches of this shape, the batch axis first.

    Args:
        backend: whose kernels the program calls; None is the stage's.
    Raises:
        NotTraceable: the stage, or one inside it, computes with something else than kernels of a CPU backend.
    """
    if stage.backend.name not in BACKENDS:
        raise NotTraceable(f"backend {stage.backend.name!r}")
    tracer = Tracer(backend or stage.backend)
    twin, _ = copy_on(stage, tracer, _refuse)
    y, _ = twin.forward(tracer.input(shape, stage.dtype), train=False)
    if not isinstance(y, np.ndarray):
        raise NotTraceable("several outputs")
    return tracer.program(y)


def _refuse(stage: Stage, backend: Any) -> Any:
    raise NotTraceable(f"layer {stage.name} is not replayable")
