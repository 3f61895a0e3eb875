"""Atomic operations on numbers in memory, and locks on which threads sleep.

Numbers are intp, given by their address. All operations are sequentially consistent: every thread sees them in the same order.
"""

import ctypes
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.target import ARCHITECTURE

_NUMBER, _ORDER = cgutils.intp_t, "seq_cst"
_SIZE = _NUMBER.width // 8
if sys.platform == "win32":
    llvm.add_symbol("sched_yield", ctypes.cast(ctypes.windll.kernel32.SwitchToThread, ctypes.c_void_p).value)


def _cell(builder, address):
    return builder.inttoptr(address, _NUMBER.as_pointer())


def call_external(builder, name, result, *args):
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
    """Add to the number; return the sum."""

    def generate(context, builder, signature, args):
        return builder.add(builder.atomic_rmw("add", _cell(builder, args[0]), args[1], _ORDER), args[1])

    return types.intp(types.intp, types.intp), generate


@intrinsic
def swap(context, address, value):
    """Store the value; return the previous one."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("xchg", _cell(builder, args[0]), args[1], _ORDER)

    return types.intp(types.intp, types.intp), generate


@intrinsic
def compare_and_swap(context, address, old, new):
    """Store `new` if the number is `old`; return whether it was."""

    def generate(context, builder, signature, args):
        return builder.extract_value(builder.cmpxchg(_cell(builder, args[0]), args[1], args[2], _ORDER, _ORDER), 1)

    return types.boolean(types.intp, types.intp, types.intp), generate


@intrinsic
def pause(context):
    """Pause a waiting loop for 10 to 50 ns; meanwhile the other hardware thread has the core."""

    def generate(context, builder, signature, args):
        if ARCHITECTURE == "x86_64":
            call_external(builder, "llvm.x86.sse2.pause", ir.VoidType())
        elif ARCHITECTURE == "aarch64":  # isb: `yield` does nothing there. Not as inline assembly, which Numba's LLVM cannot assemble
            call_external(builder, "llvm.aarch64.isb", ir.VoidType(), ir.IntType(32)(15))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def yield_processor(context):
    """Yield the processor to another thread that waits for it."""

    def generate(context, builder, signature, args):
        call_external(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def sleep(context, lock):
    """Acquire a Python lock; sleep until it is free. Calls the C function, which does not need the GIL."""

    def generate(context, builder, signature, args):
        wait = ir.IntType(32)(1)
        call_external(builder, "PyThread_acquire_lock", ir.IntType(32), builder.inttoptr(args[0], cgutils.voidptr_t), wait)
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def wake(context, lock):
    """Release a Python lock, whichever thread acquired it."""

    def generate(context, builder, signature, args):
        call_external(builder, "PyThread_release_lock", ir.VoidType(), builder.inttoptr(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.intp), generate
