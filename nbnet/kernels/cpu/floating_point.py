"""The floating-point mode of a thread: the direction of rounding, and whether subnormal numbers count as zero.

A program may change it for one thread alone, as torch.set_flush_denormal does. The threads of a parallel loop take over the caller's, so
that they compute what the caller would.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.atomics import call_external
from nbnet.kernels.cpu.target import ARCHITECTURE

# The bits of the control register that are the mode. The others are exceptions: which have occurred, and which interrupt the program.
_BITS = {
    "x86_64": 0xE040,  # of MXCSR: FTZ, rounding, DAZ
    "aarch64": 0x03C80007,  # of FPCR: DN, FZ, rounding, FZ16, NEP, AH, FIZ
}.get(ARCHITECTURE, 0)  # 0: a processor of which nothing is known


def _read(builder):
    """The whole control register."""
    if ARCHITECTURE == "aarch64":
        return call_external(builder, "llvm.aarch64.get.fpcr", ir.IntType(64))
    memory = cgutils.alloca_once(builder, ir.IntType(32))
    call_external(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(memory, cgutils.voidptr_t))
    return builder.zext(builder.load(memory), ir.IntType(64))


def _write(builder, value):
    if ARCHITECTURE == "aarch64":
        call_external(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), value)
        return
    memory = cgutils.alloca_once_value(builder, builder.trunc(value, ir.IntType(32)))
    call_external(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(memory, cgutils.voidptr_t))


@intrinsic
def mode(context):
    """The mode of the calling thread, as a number."""

    def generate(context, builder, signature, args):
        return builder.and_(_read(builder), cgutils.intp_t(_BITS)) if _BITS else cgutils.intp_t(0)

    return types.intp(), generate


@intrinsic
def set_mode(context, wanted):
    """Change the mode of the calling thread to one that `mode` returned."""

    def generate(context, builder, signature, args):
        if _BITS:
            _write(builder, builder.or_(builder.and_(_read(builder), cgutils.intp_t(~_BITS)), args[0]))
        return context.get_dummy_value()

    return types.void(types.intp), generate
