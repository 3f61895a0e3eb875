"""Run a kernel on every COMPILED backend and compare it with the NumPy definition in float64."""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytest
from cuda_machine import EXECUTED, GPU, SIMULATED, another_order
from tolerances import assert_close

from nbnet.kernels import load

DTYPES = ("float32", "float64")
CPU = () if SIMULATED or EXECUTED else ("serial", "parallel")
COMPILED = (*CPU, "cuda") if SIMULATED or GPU else CPU
GARBAGE = 77  # what outputs hold before a call: they must be overwritten
GUARD = 256  # bytes before and after each array of a call

not_simulated = pytest.mark.skipif(SIMULATED, reason="is about the CPU's chunks, or larger than the simulator can run")


def large(*cases):
    """Cases that the simulator skips."""
    return () if SIMULATED else cases


def simulated(*cases):
    """Cases only for the simulator, whose blocks are small: several blocks, and several elements per thread."""
    return cases if SIMULATED else ()


@dataclass
class Out:
    """An argument that the kernel writes.

    shape: of the output; dtype: None for the dtype under test; start: what an array that is updated in place holds before.
    scratch: contents are nobody's business. precision: the dtype whose tolerance applies, None for the one under test.
    """

    shape: tuple[int, ...] = ()
    dtype: Any = None
    start: np.ndarray | None = None
    scratch: bool = False
    precision: Any = None


def guarded(shape, dtype, values):
    """An array, and the memory that it lies in. Around it all bits are 1, NaN as floats: kernels must not write there, and what they read
    there must not reach a result."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.full(size + 2 * GUARD, 0xFF, np.uint8)
    array = memory[GUARD : GUARD + size].view(dtype).reshape(shape)
    array[...] = values
    return array, memory


def run(op, backend, dtype, args):
    """The outputs of one call. args: inputs (float64 arrays are rounded to dtype, other values are unchanged) and Out.

    On the CPU all arrays are guarded, scratch too; the simulator refuses an index beyond an array.
    """
    call, outputs, inputs, memories = [], [], [], []
    for arg in args:
        if isinstance(arg, Out):
            shape, values = (arg.shape, GARBAGE) if arg.start is None else (arg.start.shape, arg.start)
            array, memory = guarded(shape, arg.dtype or dtype, values)
            if not arg.scratch:
                outputs.append(array)
        elif isinstance(arg, np.ndarray):
            array, memory = guarded(arg.shape, dtype if arg.dtype == np.float64 else arg.dtype, arg)
            inputs.append((array, array.copy()))
        else:
            call.append(arg)
            continue
        call.append(array)
        memories.append(memory)
    if backend == "cuda":
        run_on_device(load(op, backend), call)
    else:
        load(op, backend)(*call)
    for now, before in inputs:
        np.testing.assert_array_equal(now, before, err_msg=f"{op} on {backend} changed an input")
    for memory in memories:
        assert (memory[:GUARD] == 0xFF).all(), f"{op} on {backend} wrote before an array"
        assert (memory[-GUARD:] == 0xFF).all(), f"{op} on {backend} wrote past the end of an array"
    return outputs


def run_on_device(kernel, args):
    """Call a launcher with copies of host arrays, and copy what it wrote back into them. An array given twice is one array there.

    Arrays of uint64 are counters of random numbers, which launchers read on the host."""
    from nbnet.kernels.gpu import device

    arrays = {id(arg): arg for arg in args if isinstance(arg, np.ndarray) and arg.dtype != np.uint64}
    copies = {key: device.to_device(array) for key, array in arrays.items()}
    kernel(*[copies[id(arg)] if id(arg) in arrays else arg for arg in args])
    for key, array in arrays.items():
        array[...] = device.to_host(copies[key])


def call(op, backend, *args):
    """A call on host arrays, which are written in place on any backend."""
    if backend == "cuda":
        run_on_device(load(op, backend), args)
    else:
        load(op, backend)(*args)


def rounded(args, dtype):
    """The same arguments with values that dtype can hold, so that the definition gets the same values as the kernel."""
    result = []
    for arg in args:
        if isinstance(arg, Out) and arg.start is not None:
            arg = Out(start=arg.start.astype(dtype).astype(np.float64))
        elif isinstance(arg, np.ndarray) and arg.dtype == np.float64:
            arg = arg.astype(dtype).astype(np.float64)
        result.append(arg)
    return result


def check(op, dtype, kind, args):
    """Compare numpy and the compiled backends in dtype with the definition in float64; serial, parallel and a second run on cuda must give
    the same bits. On cuda, sums of float32 run in float32, so they get float32's tolerance."""
    expected = run(op, "numpy", "float64", rounded(args, dtype))
    outs = [arg for arg in args if isinstance(arg, Out) and not arg.scratch]
    results = {backend: run(op, backend, dtype, args) for backend in ("numpy", *COMPILED)}
    for backend, result in results.items():
        for i, (actual, right, out) in enumerate(zip(result, expected, outs, strict=True)):
            precision = dtype if backend == "cuda" else out.precision or dtype
            assert_close(actual, right, kind, precision, f"{op} on {backend}, output {i}: ")
    if "cuda" in results:
        with another_order():
            again = run(op, "cuda", dtype, args)
        for a, b in zip(results["cuda"], again, strict=True):
            same_bits(a, b, f"{op}: two runs on cuda")
    if not CPU:
        return expected
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            again = run(op, "parallel", dtype, args)
        finally:
            numba.set_num_threads(before)
        for a, b in zip(results["serial"], again, strict=True):
            same_bits(a, b, f"{op}: serial and parallel with {threads} threads")
    return expected


def same_bits(a, b, what):
    assert a.dtype == b.dtype, what
    assert a.tobytes() == b.tobytes(), f"{what} differ in {np.count_nonzero(a != b)} of {a.size} values"


def check_gradient(forward, op, args, x, cotangent):
    """Compare the backward kernel `op` on every backend, in float64, with central differences of forward over every index of x.

    forward: x -> y, the definition. args: of the backward kernel; its only output is the gradient of sum(y * cotangent).
    """
    expected = differences(forward, x, cotangent)
    assert np.abs(expected).max() > 0, "a gradient of zeros would prove nothing"
    for backend in ("numpy", *COMPILED):
        (actual,) = run(op, backend, "float64", args)
        assert_close(actual, expected, "differences")


def differences(forward, x, cotangent, step=1e-5):
    """The gradient of sum(forward(x) * cotangent) with respect to x, by central differences in float64."""
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append((forward(moved) * cotangent).sum())
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def output_of(op, args):
    """The only output of the definition in float64."""
    (result,) = run(op, "numpy", "float64", args)
    return result
