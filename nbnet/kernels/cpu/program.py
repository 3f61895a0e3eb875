"""Programs: kernel calls, one after the other, as one function of machine code.

Between the kernels of a small network, even a loop over recorded calls takes longer than the kernels. A program is nothing but the calls,
with constant arguments: arrays are at fixed addresses, at fixed places of a workspace, or in the input. It is compiled without its kernels,
which it calls at their addresses, so that takes tens of milliseconds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.numba_private import absolute, entry_point, keep_with_code, populate_array


class Place(NamedTuple):
    """An array of a call that is `offset` bytes from one of the program's arguments."""

    base: int  # which argument
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


class Call(NamedTuple):
    """A call of a kernel."""

    compiled: Any  # what Numba compiled for these arguments
    args: tuple[Any, ...]  # arrays, which must stay where they are, places, numbers, None, and tuples of arrays and places


def compile_program(calls: Sequence[Call]) -> Callable[[int, int], None]:
    """A jitted function run(x, workspace) of two addresses that makes these calls. It keeps their arrays."""

    @intrinsic
    def make_calls(context, x, workspace):
        def generate(context, builder, signature, bases):
            keep_with_code(context, calls)
            for call in calls:
                _generate(context, builder, call, bases)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), generate

    @njit(nogil=True, no_cfunc_wrapper=True, error_model="numpy")
    def run(x, workspace):
        make_calls(x, workspace)

    return run


def _generate(context, builder, call, bases):
    descriptor = call.compiled.fndesc
    values = [_value(context, builder, kind, arg, bases) for kind, arg in zip(descriptor.argtypes, call.args)]
    convention = context.call_conv
    kind = convention.get_function_type(types.none, descriptor.argtypes)
    function = builder.bitcast(absolute(context, builder, entry_point(call.compiled)), kind.as_pointer())
    convention.call_function(builder, function, types.none, descriptor.argtypes, values)


def _value(context, builder, kind, arg, bases):
    """An argument as Numba passes it."""
    if isinstance(kind, types.Array):
        return _array(context, builder, kind, arg, bases)
    if isinstance(kind, types.BaseTuple):
        values = [_value(context, builder, each, part, bases) for each, part in zip(kind, arg)]
        return context.make_tuple(builder, kind, values)
    if isinstance(kind, types.NoneType):
        return context.get_dummy_value()
    return context.get_constant(kind, arg)


def _array(context, builder, kind, array, bases):
    """An array, or the one at a place, without an owner, so that references are not counted."""
    view = context.make_array(kind)(context, builder)
    if isinstance(array, Place):
        address = builder.inttoptr(builder.add(bases[array.base], context.get_constant(types.intp, array.offset)), cgutils.voidptr_t)
    else:
        address = absolute(context, builder, array.ctypes.data)
    numbers = [[context.get_constant(types.intp, number) for number in numbers] for numbers in (array.shape, array.strides)]
    populate_array(
        view,
        data=builder.bitcast(address, view.data.type),
        shape=cgutils.pack_array(builder, numbers[0]),
        strides=cgutils.pack_array(builder, numbers[1]),
        itemsize=context.get_constant(types.intp, array.itemsize),
        meminfo=None,
    )
    return view._getvalue()
