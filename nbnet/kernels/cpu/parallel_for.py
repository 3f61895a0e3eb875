"""A parallel loop: `parallel_for(count, body, args)` runs body(k, *args) for each k in range(count), on the threads of threads.py.

It replaces Numba's prange, for three reasons. prange takes twice as long to compile, since LLVM optimises each body in three modules
(docs/design/threads.md has the figures); its threads acquire the GIL before each chunk; and its loop ends only when every thread had its
turn.

A body returns nothing, and exceptions in it are lost: to find an IndexError of NUMBA_BOUNDSCHECK, run the serial driver. A body must
not acquire the GIL (print does) while the caller holds it: drivers are `nogil`.
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


def _task(context, module, compiled, arguments, with_thread):
    """The function that a thread calls for each k (see threads._call); `data` points to the arguments."""
    task = ir.Function(module, _TASK, name=module.get_unique_name("task"))
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    k, thread, data = task.args
    body = context.declare_function(module, compiled.fndesc)
    packed = builder.bitcast(data, arguments.as_pointer())
    values = [builder.load(cgutils.gep_inbounds(builder, packed, 0, i)) for i in range(len(arguments))]
    values = [_borrowed(context, builder, value, argument) for value, argument in zip(values, compiled.fndesc.argtypes[1 + with_thread :])]
    own = [k, thread][: 1 + with_thread]
    context.call_conv.call_function(builder, body, types.none, compiled.fndesc.argtypes, [*own, *values])
    builder.ret_void()
    return task


def _borrowed(context, builder, value, argument):
    """An array without an owner, so that references are not counted: threads that count references to one array wait for each other."""
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


def _loop(context, body, args, with_thread):
    threads.start()
    own = (types.intp,) * (1 + with_thread)
    signature = body.get_call_type(context, (*own, *args), {})
    if signature is None or len(signature.args) != len(own) + len(args):
        raise TypingError(
            f"got arguments {args} for the body of a parallel_for, expected those that it takes after k: pass all of them, in order"
        )
    if signature.return_type != types.none:
        raise TypingError(
            f"got a body of a parallel_for that returns {signature.return_type}, expected one that returns nothing: write to an array"
        )

    def generate(context, builder, outer, values):
        compiled = compile_result(body, signature)
        context.add_linking_libs(context.get_function(body, signature).libs)

        kind = ir.LiteralStructType([context.get_value_type(argument) for argument in args])
        task = _task(context, builder.module, compiled, kind, with_thread)
        data = _on_stack(builder, cgutils.unpack_tuple(builder, values[2]), kind)
        run = cgutils.get_or_insert_function(builder.module, _PARALLEL_FOR, "nbnet_parallel_for")
        builder.call(run, [builder.bitcast(task, _BYTES), values[0], data])
        return context.get_dummy_value()

    return types.void(types.intp, body, args), generate


@intrinsic
def parallel_for(context, count, body, args):
    """Run body(k, *args) for each k in range(count), in any order and in parallel."""
    return _loop(context, body, args, False)


@intrinsic
def parallel_for_thread(context, count, body, args):
    """Run body(k, thread, *args) for each k in range(count); no two run at once with the same thread, a number below threads.LIMIT.

    In a loop within a body, thread is 0, whichever thread runs the body.
    """
    return _loop(context, body, args, True)
