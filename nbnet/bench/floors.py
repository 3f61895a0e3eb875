"""The floors: how fast this machine copies memory and multiplies and adds, as one more contender.

Copy: n bytes from one array to another, counted as n read and n written. With plain stores the processor fetches each line before
overwriting it (n more bytes on the bus, not counted); streaming stores avoid that. Both are measured; the faster is the floor.
FMA: a loop of fused multiply-adds (where the processor has none, of multiplications and additions) on full-width vectors that stay in
registers; 2 operations per lane.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from nbnet.kernels.cpu.target import WIDTH

COPY = 1 << 27  # bytes: much larger than any cache
LOOPS = 2_000_000  # of the FMA loop: a few milliseconds
CHAINS = 12  # independent accumulators: two units of latency 4 need 8, sixteen registers hold 12


class Contender:
    """The machine itself."""

    def __init__(self, threads: int) -> None:
        self.source = np.ones(COPY // 8)
        self.target = np.zeros(COPY // 8)  # written once, so that timed copies cause no page faults

    def rates(self, calls: int, threads: int) -> dict[str, list[float]]:
        """Bytes or operations per second of each call, by the name of the measure."""
        lanes = WIDTH // 4
        measures: dict[str, tuple[Callable[[], Any], float]] = {
            "copy": (lambda: copy(self.source, self.target, threads), 2.0 * COPY),
            "copy_streaming": (lambda: _stream(self.source, self.target, threads), 2.0 * COPY),
            "fma_float32": (lambda: fma32(threads, LOOPS), 2.0 * CHAINS * lanes * LOOPS * threads),
            "fma_float64": (lambda: fma64(threads, LOOPS), 2.0 * CHAINS * lanes // 2 * LOOPS * threads),
        }
        found: dict[str, list[float]] = {}
        for name, (run, amount) in measures.items():
            run()
            found[name] = []
            for _ in range(calls):
                began = time.perf_counter()
                run()
                found[name].append(amount / (time.perf_counter() - began))
        return found


@njit(parallel=True, cache=True)
def copy(source, target, threads):
    """Copy source (n,) float64 to target (n,), in `threads` parts."""
    for thread in prange(threads):
        first, last = thread * source.size // threads, (thread + 1) * source.size // threads
        a, b = source[first:last], target[first:last]
        for i in range(a.size):
            b[i] = a[i] + 0.0  # arithmetic, so that LLVM does not call memcpy, which chooses its own stores


@intrinsic
def _stream_line(context, source, target, at):
    """Copy one vector from source to target with a store that bypasses the caches."""

    def generate(context, builder, signature, args):
        vector = ir.VectorType(ir.IntType(8), WIDTH)

        def pointer(i):
            data = context.make_array(signature.args[i])(context, builder, args[i]).data
            return builder.bitcast(builder.gep(data, [args[2]]), vector.as_pointer())

        value = builder.load(pointer(0))
        value.align = 8
        store = builder.store(value, pointer(1))
        store.align = WIDTH
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(source, target, types.intp), generate


@njit(parallel=True, cache=True)
def _stream(source, target, threads):
    lanes = WIDTH // 8
    for thread in prange(threads):
        first, last = thread * (source.size // lanes) // threads, (thread + 1) * (source.size // lanes) // threads
        skip = (-target.ctypes.data // 8) % lanes  # a streaming store needs an aligned address
        for i in range(first, last - 1):
            _stream_line(source, target, skip + i * lanes)  # type: ignore[call-arg]  # Numba passes the context


def _make_fma(bits):
    @intrinsic
    def loop(context, count):
        """Run the chains `count` times and return their sum, so that nothing can be optimised away."""
        kind = types.float32 if bits == 32 else types.float64

        def generate(context, builder, signature, args):
            element, lanes = context.get_value_type(kind), WIDTH * 8 // bits
            vector = ir.VectorType(element, lanes)
            fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{bits}")
            factor, term = (ir.Constant(vector, [number] * lanes) for number in (0.5, 1.0))
            before, body, done = builder.block, builder.append_basic_block("fma"), builder.append_basic_block("fma.done")
            builder.branch(body)
            builder.position_at_end(body)
            index = builder.phi(ir.IntType(64))
            index.add_incoming(ir.Constant(ir.IntType(64), 0), before)
            sums = [builder.phi(vector) for _ in range(CHAINS)]
            results = [builder.call(fma, [value, factor, term]) for value in sums]
            for k, (phi, result) in enumerate(zip(sums, results)):
                phi.add_incoming(ir.Constant(vector, [float(k)] * lanes), before)
                phi.add_incoming(result, body)
            following = builder.add(index, ir.Constant(ir.IntType(64), 1))
            index.add_incoming(following, body)
            builder.cbranch(builder.icmp_signed("<", following, args[0]), body, done)
            builder.position_at_end(done)
            total = results[0]
            for result in results[1:]:
                total = builder.fadd(total, result)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return kind(types.intp), generate

    return loop


_loop32, _loop64 = _make_fma(32), _make_fma(64)


@njit(parallel=True, cache=True)
def fma32(threads, loops):
    """Run the FMA loop in float32, `loops` times on each thread."""
    out = np.zeros(threads, np.float32)
    for thread in prange(threads):
        out[thread] = _loop32(loops)
    return out


@njit(parallel=True, cache=True)
def fma64(threads, loops):
    """Run the FMA loop in float64, `loops` times on each thread."""
    out = np.zeros(threads, np.float64)
    for thread in prange(threads):
        out[thread] = _loop64(loops)
    return out
