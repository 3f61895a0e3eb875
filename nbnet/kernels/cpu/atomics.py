"""What threads need of the processor and of Python: numbers in memory that several of them change, and locks to sleep at.

Numbers are intp, at an address. All operations are sequentially consistent: every thread sees them in one order.
"""

import ctypes
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_NUMBER, _ORDER = cgutils.intp_t, "seq_cst"
_SIZE = _NUMBER.width // 8
if sys.platform == "win32":
    llvm.add_symbol("sched_yield", ctypes.cast(ctypes.windll.kernel32.SwitchToThread, ctypes.c_void_p).value)


def _cell(builder, address):
    return builder.inttoptr(address, _NUMBER.as_pointer())


def _call(builder, name, result, *args):
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@intrinsic
def load(context, address):
    def generate(context, builder, signature, args):
        return builder.load_atomic(_cell(builder, args[0]), _ORDER, _SIZE)

    return types.intp(types.intp), generate


@intrinsic
def store(context, address, value):
    def generate(context, builder, signature, args):
        builder.store_atomic(args[1], _cell(builder, args[0]), _ORDER, _SIZE)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@intrinsic
def add(context, address, value):
    """Returns the sum."""

    def generate(context, builder, signature, args):
        return builder.add(builder.atomic_rmw("add", _cell(builder, args[0]), args[1], _ORDER), args[1])

    return types.intp(types.intp, types.intp), generate


@intrinsic
def swap(context, address, value):
    """Store the value; returns what was there before."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("xchg", _cell(builder, args[0]), args[1], _ORDER)

    return types.intp(types.intp, types.intp), generate


@intrinsic
def replace(context, address, old, new):
    """Store `new` where `old` is found; returns whether it was."""

    def generate(context, builder, signature, args):
        return builder.extract_value(builder.cmpxchg(_cell(builder, args[0]), args[1], args[2], _ORDER, _ORDER), 1)

    return types.boolean(types.intp, types.intp, types.intp), generate


@intrinsic
def pause(context):
    """A moment in a loop that waits (10 to 50 ns), in which the processor leaves its units to the other thread of the core."""

    def generate(context, builder, signature, args):
        processor = llvm.get_process_triple().split("-")[0]
        if processor == "x86_64":
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType())
        elif processor in ("aarch64", "arm64"):
            builder.asm(ir.FunctionType(ir.VoidType(), []), "isb", "~{memory}", [], True)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(context):
    """Let another thread have this processor, if one waits for it."""

    def generate(context, builder, signature, args):
        _call(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def sleep(context, lock):
    """Take one of Python's locks: sleeps until it is free. It is the C function, which wants no global interpreter lock."""

    def generate(context, builder, signature, args):
        wait = ir.IntType(32)(1)
        _call(builder, "PyThread_acquire_lock", ir.IntType(32), builder.inttoptr(args[0], cgutils.voidptr_t), wait)
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def wake(context, lock):
    """Free one of Python's locks, whoever took it."""

    def generate(context, builder, signature, args):
        _call(builder, "PyThread_release_lock", ir.VoidType(), builder.inttoptr(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.intp), generate
