"""Prefetching, and streaming stores that bypass the caches."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from nbnet.kernels.cpu.target import WIDTH
from nbnet.kernels.cpu.vector import address_of, write, write_whole

LINE = 64  # bytes of a cache line
LARGE = 1 << 24  # bytes of an array too large to stay in a cache until it is read
NEAR = 1 << 20  # bytes of an array that may still be in the second cache
PREFETCH_DISTANCE = 1024  # numbers ahead of the loop, where it walks arrays in memory order
FAR_DISTANCE = 4096  # the same, of prefetch_far


@register_jitable
def bypasses_cache(array, row):
    """Whether to overwrite an array, in rows of `row` numbers, with streaming stores: it is larger than the caches.

    A normal store first reads the cache line from memory, which pays only if the array is read again before it leaves the cache. Every
    vector must start at a multiple of its size.
    """
    return array.nbytes >= LARGE and row % (WIDTH // array.itemsize) == 0 and array.ctypes.data % WIDTH == 0


@intrinsic
def store_or_stream(context, array, at, count, value, bypasses):
    """array[at : at + lanes] = value: with a streaming store where `bypasses` (see bypasses_cache) is true, and then all lanes must be
    inside; else as `store`. An intrinsic, since a function with a branch would count references to the array, once for each vector."""

    def generate(context, builder, signature, args):
        _, _, count, value, bypasses = args
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        with builder.if_else(bypasses) as (stream, plain):
            with stream:
                instruction = write_whole(builder, value, pointer)
                instruction.align = WIDTH
                instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            with plain:
                write(builder, value, pointer, count)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value, types.boolean), generate


@register_jitable
def needs_prefetch(array):
    """Whether to prefetch: the array is larger than hardware prefetching covers."""
    return array.nbytes > NEAR


def _prefetch(write, locality=3):
    def prefetch(context, array, at):
        def generate(context, builder, signature, args):
            pointer = address_of(context, builder, signature.args[0], args[0], args[1])
            function_type = ir.FunctionType(ir.VoidType(), [pointer.type, *[ir.IntType(32)] * 3])
            fetch = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
            builder.call(fetch, [pointer, *(ir.IntType(32)(n) for n in (write, locality, 1))])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return intrinsic(prefetch)


# prefetch(array, at): prefetch the cache line of array[at] for a load, or for a store. `at` may lie past the end.
prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)
# As prefetch, into the second cache alone: more of them can be on their way, and they do not displace what the loop is using.
prefetch_far = _prefetch(0, locality=2)
