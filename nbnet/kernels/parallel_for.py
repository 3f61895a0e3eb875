"""A parallel loop over chunks: `parallel_for(count, body, args)` runs body(k, *args) for each k in range(count), on Numba's threads.

It calls the function that prange calls, numba_parallel_for of the threading layer in use (omp, tbb or workqueue), and leaves out the rest
of Numba's automatic parallelisation. That has each body optimised by LLVM in three modules on its way into a driver, and takes twice as
long to compile (docs/performance.md has the figures); its workers also ask for Python's lock before each chunk.

A body returns nothing, and what it raises is lost: look for an IndexError of NUMBA_BOUNDSCHECK in the serial driver.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

_BYTES, _NUMBER = cgutils.voidptr_t, cgutils.intp_t
_NUMBERS = _NUMBER.as_pointer()
_TASK = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _NUMBERS, _NUMBERS, _BYTES])  # of a NumPy ufunc's inner loop
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [_NUMBER] * 3)


def _task(context, module, compiled, arguments):
    """The function that a thread calls with a range of k, as a ufunc's inner loop: (char **first, intp *count, intp *step, void *data).

    The layers add k * step to a pointer. This one is null and its step 1, so that the pointer is k itself. `data` holds the arguments.
    """
    task = ir.Function(module, _TASK, name=module.get_unique_name("task"))
    task.linkage = "internal"
    task.attributes.add("noinline")
    builder = ir.IRBuilder(task.append_basic_block())
    first, count, _, data = task.args
    body = context.declare_function(module, compiled.fndesc)
    packed = builder.bitcast(data, arguments.as_pointer())
    values = [builder.load(cgutils.gep_inbounds(builder, packed, 0, i)) for i in range(len(arguments))]
    values = [_borrowed(context, builder, value, argument) for value, argument in zip(values, compiled.fndesc.argtypes[1:])]
    start = builder.ptrtoint(builder.load(first), _NUMBER)
    with cgutils.for_range(builder, builder.load(count)) as loop:
        k = builder.add(start, loop.index)
        context.call_conv.call_function(builder, body, types.none, compiled.fndesc.argtypes, [k, *values])
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


@intrinsic
def parallel_for(context, count, body, args):
    """body(k, *args) for each k in range(count), in any order and at once."""
    signature = body.get_call_type(context, (types.intp, *args), {})
    if signature is None or len(signature.args) != 1 + len(args):
        raise TypingError(f"the body of this parallel_for takes other arguments than k and {args}")
    if signature.return_type != types.none:
        raise TypingError(f"the body of a parallel_for returns nothing, and this one returns {signature.return_type}")

    def generate(context, builder, outer, values):
        _launch_threads()  # which also tells LLVM where numba_parallel_for is
        compiled = body.dispatcher.get_compile_result(signature)
        context.add_linking_libs(context.get_function(body, signature).libs)

        kind = ir.LiteralStructType([context.get_value_type(argument) for argument in args])
        task = _task(context, builder.module, compiled, kind)
        data = _on_stack(builder, cgutils.unpack_tuple(builder, values[2]), kind)
        first, steps, counts = (_on_stack(builder, [n], ir.LiteralStructType([_NUMBER])) for n in (_NUMBER(0), _NUMBER(1), values[0]))
        with builder.if_else(builder.icmp_signed("<=", values[0], _NUMBER(1))) as (alone, shared):
            with alone:
                given = zip((first, counts, steps, data), _TASK.args)
                builder.call(task, [builder.bitcast(value, wanted) for value, wanted in given])
            with shared:
                get_threads = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_NUMBER, []), "get_num_threads")
                run = cgutils.get_or_insert_function(builder.module, _PARALLEL_FOR, "numba_parallel_for")
                sizes = _NUMBER(0), _NUMBER(1), builder.call(get_threads, [])  # inner dimensions, arrays, threads
                builder.call(run, [builder.bitcast(task, _BYTES), first, counts, steps, data, *sizes])
        return context.get_dummy_value()

    return types.void(types.intp, body, args), generate
