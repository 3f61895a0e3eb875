"""Packed calls: kernel calls with fixed arguments, one after the other, as one call from Python.

To hand over the arguments of a kernel takes Python longer than some kernels of a small network take. So each kernel also has a function
that reads its arguments from memory (numba_private.packed), and `play` calls such functions from a table.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.compile import serial
from nbnet.kernels.cpu.numba_private import overload, packed

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


@intrinsic
def _call(context, function, arguments):
    """The status of int32 function(void **arguments), both given as addresses."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(cgutils.int32_t, [cgutils.intp_t])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int32(types.intp, types.intp), generate


@serial
def play(table):
    """Make the calls of a table (N, 2): addresses of packed functions and of their arguments. Return how many came to their end."""
    for i in range(table.shape[0]):
        if _call(table[i, 0], table[i, 1]) != 0:
            return i
    return table.shape[0]


class Playback:
    """Recorded calls, to be made again and again. Kernels that follow each other are one call of `play`.

    Args:
        calls: the arguments of kernels must not change; arrays must stay where they are.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self.calls = list(calls)
        runs = groupby(self.calls, key=lambda call: hasattr(call[0], "overloads"))
        self._steps = [step for kernels, run in runs for step in ([_Table([*run])] if kernels else _plain(run))]

    def __len__(self) -> int:
        return len(self.calls)

    def __call__(self) -> None:
        for step in self._steps:
            step()


def _plain(calls: Iterable[Call]) -> Iterator[Callable[[], Any]]:
    return (partial(function, *args) for function, args in calls)


class _Table:
    """Calls of kernels, with their arguments in memory."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        compiled = [overload(function, args) for function, args in calls]
        self._arguments = [[_stored(kind, arg) for kind, arg in zip(one.fndesc.argtypes, args)] for one, (_, args) in zip(compiled, calls)]
        self._pointers = [np.array([data.ctypes.data for data in row], np.intp) for row in self._arguments]
        self._table = np.array([(packed(one), row.ctypes.data) for one, row in zip(compiled, self._pointers)], np.intp)
        play(self._table[:0])
        self._play = overload(play, (self._table,)).entry_point

    def __call__(self) -> None:
        done = self._play(self._table)
        if done < len(self.calls):  # the same call from Python raises the kernel's exception
            function, args = self.calls[done]
            function(*args)


def _stored(kind: Any, arg: Any) -> np.ndarray:
    """The memory of an argument as Numba stores it."""
    if isinstance(kind, types.Array):  # without an owner, so that references are not counted
        return np.array([0, 0, arg.size, arg.itemsize, arg.ctypes.data, *arg.shape, *arg.strides], np.intp)
    if isinstance(kind, types.BaseTuple):
        return np.concatenate([_stored(*each) for each in zip(kind, arg)])
    if isinstance(kind, types.NoneType):
        return np.zeros(1, np.intp)
    return np.array([arg], np.uint8 if isinstance(kind, types.Boolean) else str(kind))
