"""Loads and stores that tell the caches what comes: what is asked for ahead of its use, and what is written past them."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from nbnet.kernels.cpu.register_tiles import WIDTH
from nbnet.kernels.cpu.vector import address_of, store, write_whole

LINE = 64  # bytes of a cache line
LARGE = 1 << 24  # bytes of an array that no cache holds until it is read
NEAR = 1 << 22  # bytes of an array that the caches deliver in time by themselves
AHEAD = 1024  # numbers after its own that a loop asks for, where it goes through arrays as they lie in memory


@intrinsic
def store_past(context, array, at, value):
    """array[at : at + lanes] = value, past the caches, where `passes_caches` holds: all of it is inside."""

    def generate(context, builder, signature, args):
        pointer = address_of(context, builder, signature.args[0], args[0], args[1])
        instruction = write_whole(builder, args[2], pointer)
        instruction.align = WIDTH
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@register_jitable
def passes_caches(array, row):
    """Whether an array that is to be overwritten, in rows of `row` numbers, should be written past the caches.

    A store into the caches reads the line from memory first. That is worth it where somebody reads the array before it is pushed
    out again, which nobody can if it is larger than the caches. Each vector must start at a multiple of a vector's size.
    """
    return array.nbytes >= LARGE and row % (WIDTH // array.itemsize) == 0 and array.ctypes.data % WIDTH == 0


@register_jitable
def put(array, at, count, value, past):
    """store, or store_past where `past` says so."""
    if past:
        store_past(array, at, value)
    else:
        store(array, at, count, value)


@register_jitable
def comes_late(array):
    """Whether a loop over an array, of which it needs many rows at once, should ask for the next ones while it works on some."""
    return array.nbytes > NEAR


def _prefetch(write):
    def prefetch(context, array, at):
        def generate(context, builder, signature, args):
            pointer = address_of(context, builder, signature.args[0], args[0], args[1])
            function_type = ir.FunctionType(ir.VoidType(), [pointer.type, *[ir.IntType(32)] * 3])
            fetch = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
            builder.call(fetch, [pointer, *(ir.IntType(32)(n) for n in (write, 3, 1))])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return intrinsic(prefetch)


# prefetch(array, at): ask for the cache line of array[at] ahead of its use, or of a store to it. `at` may lie past the end.
prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)
