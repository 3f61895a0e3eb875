"""A parallel loop: `parallel_for(count, body, args)` runs body(k, *args) for each k in range(count), on the threads of threads.py.

It takes the place of Numba's prange, which has each body optimised by LLVM in three modules on its way into a driver, and takes twice
as long to compile (docs/performance.md has the figures); whose threads ask for Python's lock before each chunk; and which ends when
the last of all threads has had its turn.

A body returns nothing, and what it raises is lost: look for an IndexError of NUMBA_BOUNDSCHECK in the serial driver. It must not want
Python's lock (print does) where the caller has it: drivers are `nogil`.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from nbnet.kernels.cpu import threads
from nbnet.kernels.cpu.compile import parallel  # noqa: F401  # drivers import both from here
from nbnet.kernels.cpu.numba_private import compile_result

_BYTES, _NUMBER = cgutils.voidptr_t, cgutils.intp_t
_TASK = ir.FunctionType(ir.VoidType(), [_NUMBER, _NUMBER, _BYTES])
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_BYTES, _NUMBER, _BYTES])


def _task(context, module, compiled, arguments, wants_thread):
    """The function that a thread calls for each k: see threads._call. `data` points to the arguments."""
    task = ir.Function(module, _TASK, name=module.get_unique_name("task"))
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    k, thread, data = task.args
    body = context.declare_function(module, compiled.fndesc)
    packed = builder.bitcast(data, arguments.as_pointer())
    values = [builder.load(cgutils.gep_inbounds(builder, packed, 0, i)) for i in range(len(arguments))]
    values = [_borrowed(context, builder, value, argument) for value, argument in zip(values, compiled.fndesc.argtypes[1 + wants_thread :])]
    own = [k, thread][: 1 + wants_thread]
    context.call_conv.call_function(builder, body, types.none, compiled.fndesc.argtypes, [*own, *values])
    builder.ret_void()
    return task


def _borrowed(context, builder, value, argument):
    """An array without an owner, whose references are not counted: threads that count the same array's wait for each other."""
    if not isinstance(argument, types.Array):
        return value
    array = context.make_array(argument)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


def _on_stack(builder, values, kind):
    """A pointer to the values, as bytes."""
    memory = cgutils.alloca_once(builder, kind)
    for i, value in enumerate(values):
        builder.store(value, cgutils.gep_inbounds(builder, memory, 0, i))
    return builder.bitcast(memory, _BYTES)


def _loop(context, body, args, wants_thread):
    threads.start()
    own = (types.intp,) * (1 + wants_thread)
    signature = body.get_call_type(context, (*own, *args), {})
    if signature is None or len(signature.args) != len(own) + len(args):
        raise TypingError(f"the body of this parallel_for takes other arguments than k and {args}")
    if signature.return_type != types.none:
        raise TypingError(f"the body of a parallel_for returns nothing, and this one returns {signature.return_type}")

    def generate(context, builder, outer, values):
        compiled = compile_result(body, signature)
        context.add_linking_libs(context.get_function(body, signature).libs)

        kind = ir.LiteralStructType([context.get_value_type(argument) for argument in args])
        task = _task(context, builder.module, compiled, kind, wants_thread)
        data = _on_stack(builder, cgutils.unpack_tuple(builder, values[2]), kind)
        run = cgutils.get_or_insert_function(builder.module, _PARALLEL_FOR, "nbnet_parallel_for")
        builder.call(run, [builder.bitcast(task, _BYTES), values[0], data])
        return context.get_dummy_value()

    return types.void(types.intp, body, args), generate


@intrinsic
def parallel_for(context, count, body, args):
    """body(k, *args) for each k in range(count), in any order and at once."""
    return _loop(context, body, args, False)


@intrinsic
def parallel_for_thread(context, count, body, args):
    """body(k, thread, *args) for each k in range(count): no two at once with the same thread, which is below threads.LIMIT.

    A loop within a body runs on thread 0, whichever runs the body.
    """
    return _loop(context, body, args, True)
