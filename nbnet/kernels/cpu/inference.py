"""Jitted functions around a program of kernel calls (program.py): workspaces that threads share, checks, batches."""

import math

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from nbnet.errors import ArgumentError, ShapeError
from nbnet.kernels.cpu.atomics import compare_and_swap, store, yield_processor
from nbnet.kernels.cpu.numba_private import absolute, keep_with_code

ALIGNMENT = 128  # bytes: two lines of the cache, which processors fetch together; threads that write to different ones do not wait
WORKSPACES, ROOM = 16, 1 << 30  # of a program, at most so many and in so many bytes: so many threads run it at once, others wait
_OPTIONS = {"nogil": True, "no_cfunc_wrapper": True, "error_model": "numpy"}


def _held(array):
    """A jitted function that returns the address of an array, and keeps the array as long as its callers."""

    @intrinsic
    def address(context):
        def generate(context, builder, signature, args):
            keep_with_code(context, array)
            return builder.ptrtoint(absolute(context, builder, array.ctypes.data), cgutils.intp_t)

        return types.intp(), generate

    return address


@intrinsic
def _copy(context, target, source, size):
    """Copy bytes from address to address."""

    def generate(context, builder, signature, args):
        target, source = (builder.inttoptr(address, cgutils.voidptr_t) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


def layout(workspace):
    """How many workspaces of at least so many bytes a program has, and the bytes of each, flags included."""
    size = -(-workspace // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    return max(1, min(WORKSPACES, ROOM // size)), size


def runner(program, memory, y_bytes):
    """A jitted function (address of x, address of y) that runs a nbnet.runtime.tracing.Program; several threads may call it at once.

    Args:
        memory: bytes that are 0, as many as the program's `layout` takes, from a multiple of ALIGNMENT on. y_bytes: the size of y.
    """
    count, size = layout(program.workspace)
    workspaces, run, (base, offset) = _held(memory), program.run, program.y[:2]

    @njit(**_OPTIONS)
    def run_in_workspace(x, y):
        slot, tries = 0, 0
        while not compare_and_swap(workspaces() + slot * size, 0, 1):  # it starts with a flag: whether a thread uses it
            slot, tries = (slot + 1) % count, tries + 1
            if tries % count == 0:
                yield_processor()
        workspace = workspaces() + slot * size + ALIGNMENT
        run(x, workspace)
        _copy(y, (x, workspace)[base] + offset, y_bytes)
        store(workspaces() + slot * size, 0)

    return run_in_workspace


def on_arrays(run):
    """A jitted function (x, y) of C-contiguous arrays, for run(address of x, address of y)."""

    @njit(**_OPTIONS)
    def run_on_arrays(x, y):
        run(x.ctypes.data, y.ctypes.data)

    return run_on_arrays


# ------------------------------------------------------------------------------------------------ for jitted callers


def _check_type(dtype, axes):
    """A jitted function that refuses, when its caller is compiled, what is no example and no batch of them."""

    @intrinsic
    def check(context, x):
        if not isinstance(x, types.Array) or str(x.dtype) != str(dtype) or x.ndim not in (axes, axes + 1) or x.layout != "C":
            raise TypingError(f"a compiled model got {x}, expected a C-contiguous array of {dtype} with {axes} or {axes + 1} axes")
        return types.void(x), lambda context, builder, signature, args: context.get_dummy_value()

    return check


def for_callers(run, x_shape, y_shape, dtype):
    """Jitted functions predict(x) -> y and predict_into(x, y) of one example or a batch, for run(address of x, address of y) of one."""
    axes = len(x_shape)
    x_bytes, y_bytes = (math.prod(shape) * dtype.itemsize for shape in (x_shape, y_shape))
    check_x, check_y = _check_type(dtype, axes), _check_type(dtype, len(y_shape))
    message = f"a compiled model got x or y of another shape, expected {x_shape} and {y_shape}, or batches (N, ...) of them"

    @njit(**_OPTIONS)
    def rows(x):
        if x.ndim == axes:  # known when this is compiled
            return ()
        return (x.shape[0],)

    @njit(**_OPTIONS)
    def predict_into(x, y):
        check_x(x)
        check_y(y)
        if x.shape != rows(x) + x_shape or y.shape != rows(x) + y_shape:
            raise ShapeError(message)
        for row in range(x.nbytes // x_bytes):
            run(x.ctypes.data + row * x_bytes, y.ctypes.data + row * y_bytes)

    @njit(**_OPTIONS)
    def predict(x):
        check_x(x)
        y = np.empty(rows(x) + y_shape, dtype)
        predict_into(x, y)
        return y

    for function in (predict, predict_into):
        function.__reduce_ex__ = _refuse_to_pickle
    return predict, predict_into


def _refuse_to_pickle(protocol):
    """Numba tries it too, where a jitted function with cache=True has the compiled model in its closure."""
    raise ArgumentError("a compiled model cannot be pickled or cached on disk: pickle the model, and call nb.compile again")
