"""Matrix products in register tiles, for convolution and dense: compiled once per dtype and called at their address.

The tiles are the largest part of the machine code. Inlined into every kernel, they were optimised again and again, a fifth of a cold
start. With arrays as arguments, each call passed some thirty numbers and took longer than a small product. So there is one C function
for float32 and one for float64, with pointers and numbers as arguments.
"""

from functools import cache, partial

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.cache import symbols
from nbnet.kernels.cpu.compile import c_function, inlined
from nbnet.kernels.cpu.register_tiles import MAX_VECTORS, further, lanes, rows_of_1, rows_of_2, rows_of_4
from nbnet.kernels.cpu.vector import address_of

MACS = 32  # multiply-adds that cost as much as one elementary operation of `chunks`
# Products that are added up one after the other, in T. Callers with longer sums add up such blocks: a sum of a million float32 numbers,
# one after the other, has lost four digits.
TERMS = 1024


def _symbol(dtype):
    return f"nbnet_gemm_float{dtype.bitwidth}"


def _signature(dtype):
    pointer, number = types.CPointer(dtype), types.intp
    return types.void(number, pointer, *[number] * 3, pointer, *[number] * 4, pointer, number, pointer, *[number] * 2)


def _compiled(dtype):
    """The product for one dtype, as a C function."""

    @c_function(_signature(dtype))
    def gemm(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
        vector = lanes(c)
        while columns > 0:
            if MAX_VECTORS == 4 and columns > vector * 3:
                rows_of_4(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
                done = vector * 4
            elif columns > vector:
                rows_of_2(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
                done = vector * 2
            else:
                rows_of_1(rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns)
                done = vector
            b, init, c = further(b, done), further(init, done), further(c, done)
            columns -= done

    return gemm


@cache
def _define(dtype):
    """Define the symbol of the product of a dtype, before a kernel that is linked against it is compiled or loaded from disk."""
    function = _compiled(dtype)
    llvm.add_symbol(_symbol(dtype), function.address)
    return function  # which must outlive the kernels


symbols.update({_symbol(dtype): partial(_define, dtype) for dtype in (types.float32, types.float64)})


@intrinsic
def _address(context, array, index):
    """A pointer to array[index] of a flat array. The caller owns the arrays of a kernel, so they outlive the pointer."""

    def generate(context, builder, signature, args):
        return address_of(context, builder, signature.args[0], args[0], args[1])

    return types.CPointer(array.dtype)(array, types.intp), generate


@intrinsic
def _call(context, rows, a, a_outer, a_r, a_k, b, b_outer, b_k, outer, inner, init, init_r, c, c_r, columns):
    def generate(context, builder, signature, args):
        function_type = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, _symbol(a.dtype)), args)
        return context.get_dummy_value()

    _define(a.dtype)
    return _signature(a.dtype), generate


@inlined
def gemm(rows, a, a_at, a_outer, a_r, a_k, b, b_at, b_outer, b_k, outer, inner, init, init_at, init_r, c, c_at, c_r, columns):
    """c[r, j] = init[r, j] + sum over o, k of a[o, r, k] * b[o, k, j], for r < rows and j < columns.

    a, b, init, c: flat arrays of one dtype; init may be c, or one row of it for all rows. `_at`: where they start. a_outer, a_r, a_k,
    b_outer, b_k, init_r, c_r: strides of the indices, in numbers; the stride of j is 1. outer and inner are at least 1.
    """
    at_a, at_b, at_init, at_c = _address(a, a_at), _address(b, b_at), _address(init, init_at), _address(c, c_at)
    _call(rows, at_a, a_outer, a_r, a_k, at_b, b_outer, b_k, outer, inner, at_init, init_r, at_c, c_r, columns)
