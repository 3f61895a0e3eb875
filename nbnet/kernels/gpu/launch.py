"""CUDA kernels: how they are launched and laid out, and the few functions that they share.

Kernels see flat arrays and read them by `load` and `store`: four elements at a time, one 128-bit access in float32 and two in
float64, also at the ends of an array. Four elements are a tuple, in registers. Every array is aligned to 16 bytes.

Grids depend only on the shape: results have the same bits on every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import SIMULATED, formula, function
from nbnet.kernels.gpu.launches import launch

THREADS = 8 if SIMULATED else 256  # per block; few in the simulator, so that tiny arrays need several blocks
MULTIPROCESSORS = 2 if SIMULATED else 132  # that a grid should fill, as of an H100: constant, so that results do not depend on the GPU
BLOCKS = 3 if SIMULATED else 8 * MULTIPROCESSORS  # per grid whose blocks loop
WARP = 4 if SIMULATED else 32
ALIGNMENT = None if SIMULATED else 16  # of shared arrays that are read by load4


def run(compiled: Any, grid: Any, block: Any, *args: Any) -> None:
    """Launch a kernel on nbnet's stream. Arrays are passed flat; pass their sizes as numbers.

    Raises:
        KernelError: it has more threads than `divide` takes numbers.
    """
    launch(compiled, grid, block, *[arg.flat if type(arg) is device.DeviceArray else arg for arg in args])


def elementwise(compiled: Any, size: int, *args: Any) -> None:
    """Launch a kernel whose thread i handles elements 4 i to 4 i + 3 of `size`."""
    if size:
        run(compiled, -(-size // (4 * THREADS)), THREADS, *args)


# ------------------------------------------------------------------------------------------- four elements at a time

if SIMULATED:
    from nbnet.kernels.gpu.numba_private import numbers_of

    def load4(array, index):
        """Elements index to index + 3, where index is a multiple of 4 and all exist."""
        return tuple(numbers_of(array)[index : index + 4])

    def store4(array, index, values):
        """Write what load4 reads."""
        numbers_of(array)[index : index + 4] = values

    def _divide32(a, b):
        return a // b

    def narrow(number):
        """A whole number below 2^31 as one of 32 bits."""
        return number

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    def _vector_pointer(context, builder, array_type, array, index):
        pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
        return builder.bitcast(pointer, ir.VectorType(context.get_value_type(array_type.dtype), 4).as_pointer())

    @intrinsic
    def load4(typing_context, array, index):
        """Elements index to index + 3, where index is a multiple of 4 and all exist."""

        def code(context, builder, signature, args):
            vector = builder.load(_vector_pointer(context, builder, array, args[0], args[1]), align=16)
            elements = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(4)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(array.dtype, 4)(array, types.intp), code

    @intrinsic
    def store4(typing_context, array, index, values):
        """Write what load4 reads."""

        def code(context, builder, signature, args):
            pointer = _vector_pointer(context, builder, array, args[0], args[1])
            vector = ir.Constant(pointer.type.pointee, ir.Undefined)
            for i in range(4):
                vector = builder.insert_element(vector, builder.extract_value(args[2], i), ir.Constant(ir.IntType(32), i))
            builder.store(vector, pointer, align=16)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.UniTuple(array.dtype, 4)), code

    @intrinsic
    def _divide32(typing_context, a, b):
        def code(context, builder, signature, args):
            short = [builder.trunc(arg, ir.IntType(32)) for arg in args]
            return builder.zext(builder.udiv(*short), ir.IntType(64))

        return types.int64(types.int64, types.int64), code

    @intrinsic
    def narrow(typing_context, number):
        """A whole number below 2^31 as one of 32 bits. Numba computes with these in 64 bits, but where the result is narrowed too, the
        compiler needs only 32: one instruction instead of two for a sum, and of five for a product."""

        def code(context, builder, signature, args):
            return builder.trunc(args[0], ir.IntType(32)) if args[0].type.width > 32 else args[0]

        return types.int32(types.unliteral(number)), code


@formula
def narrow_all(numbers):
    """`narrow` of each of two numbers."""
    return narrow(numbers[0]), narrow(numbers[1])


@formula
def load(array, index, size):
    """Elements index to index + 3 of the first `size`; 0 beyond."""
    if index + 4 <= size:
        return load4(array, index)
    zero = array.dtype.type(0)
    return (
        array[index] if index < size else zero,
        array[index + 1] if index + 1 < size else zero,
        array[index + 2] if index + 2 < size else zero,
        array[index + 3] if index + 3 < size else zero,
    )


@formula
def store(array, index, size, values):
    """Write elements index to index + 3, if they are within the first `size`."""
    if index + 4 <= size:
        store4(array, index, values)
    else:
        if index < size:
            array[index] = values[0]
        if index + 1 < size:
            array[index + 1] = values[1]
        if index + 2 < size:
            array[index + 2] = values[2]


@formula
def divide(a, b):
    """a // b and a % b, for numbers from 0 to 2^32 - 1: about 20 instructions, where 64 bits take 100."""
    quotient = _divide32(a, b)
    return quotient, a - quotient * b


# ---------------------------------------------------------------------------------------------- arithmetic on four


@formula
def add4(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


@formula
def subtract4(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]


@formula
def multiply4(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]


@formula
def multiply_add4(a, b, c):
    """a * b + c"""
    return a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]


@formula
def where4(w, a, b):
    """a where w is above 0, else b."""
    return a[0] if w[0] > 0 else b[0], a[1] if w[1] > 0 else b[1], a[2] if w[2] > 0 else b[2], a[3] if w[3] > 0 else b[3]


@formula
def wide4(a):
    return np.float64(a[0]), np.float64(a[1]), np.float64(a[2]), np.float64(a[3])


# --------------------------------------------------------------- a row of numbers for a group of neighbouring threads


def row_group(numbers: int) -> int:
    """Threads for a row of this many numbers: a power of 2, at most a warp, or a whole block for long rows."""
    return THREADS if numbers >= 32 * WARP else min(WARP, 1 << (numbers - 1).bit_length())


if SIMULATED:

    @function
    def _exchange(value, offset):
        shared = cuda.shared.array(THREADS, np.float64)
        shared[cuda.threadIdx.x] = value
        cuda.syncthreads()
        other = type(value)(shared[cuda.threadIdx.x ^ offset])
        cuda.syncthreads()
        return other

    @function
    def _order_memory_of_warp():
        cuda.syncthreads()

else:

    @function
    def _exchange(value, offset):
        """The value of the thread whose number differs in the bit `offset`, of the same warp."""
        return cuda.shfl_xor_sync(0xFFFFFFFF, value, offset)

    @function
    def _order_memory_of_warp():
        """What lanes have read, others may overwrite after this; a shuffle orders nothing."""
        cuda.syncwarp()


@function
def row_sum(value, group, like):
    """The sum over the group of threads, in each of them, in a fixed order. like: an array of value's dtype.

    All threads of a block must call it. What a thread of the group has read before, others may overwrite after it.
    """
    offset = min(group, WARP) // 2
    while offset > 0:
        value += _exchange(value, offset)
        offset //= 2
    if group > WARP:
        warps = cuda.shared.array(WARP, like.dtype)
        if cuda.threadIdx.x % WARP == 0:
            warps[cuda.threadIdx.x // WARP] = value
        cuda.syncthreads()
        value = warps[0]
        for i in range(1, group // WARP):
            value += warps[i]
        cuda.syncthreads()
    else:
        _order_memory_of_warp()
    return value


@function
def row_maximum(value, index, group, like):
    """The maximum over the group of threads and its index, the first of equals; a NaN is never larger. Otherwise as row_sum."""
    offset = min(group, WARP) // 2
    while offset > 0:
        other, other_index = _exchange(value, offset), _exchange(index, offset)
        if other > value or (other == value and other_index < index):
            value, index = other, other_index
        offset //= 2
    if group > WARP:
        warps = cuda.shared.array(WARP, like.dtype)
        indices = cuda.shared.array(WARP, np.int64)
        if cuda.threadIdx.x % WARP == 0:
            warps[cuda.threadIdx.x // WARP] = value
            indices[cuda.threadIdx.x // WARP] = index
        cuda.syncthreads()
        value, index = warps[0], indices[0]
        for i in range(1, group // WARP):
            if warps[i] > value or (warps[i] == value and indices[i] < index):
                value, index = warps[i], indices[i]
        cuda.syncthreads()
    else:
        _order_memory_of_warp()
    return value, index


def rows(compiled: Any, count: int, numbers: int, *args: Any) -> None:
    """Launch a kernel that gives each of `count` rows to row_group(numbers) threads; that number is its last argument."""
    if count:
        group = row_group(numbers)
        run(compiled, -(-count * group // THREADS), THREADS, *args, group)
