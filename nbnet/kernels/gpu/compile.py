"""How CUDA kernels are compiled and kept on disk, in one place."""

import math
import warnings
from functools import cache

from numba import cuda

from nbnet.errors import KernelError
from nbnet.kernels.channelwise import named, source, within
from nbnet.kernels.gpu import numba_private
from nbnet.kernels.gpu.numba_private import SIMULATED
from nbnet.kernels.sources import KernelFiles, define, kept_if_possible

function = cuda.jit(device=True)


def _unchanged(code):
    return code


formula = _unchanged if SIMULATED else function  # a function of its arguments alone, which the simulator can call directly


def _cells_of(code):
    """What a function's cells hold. Functions in them are described, since their pickles differ from process to process."""
    return tuple([_described(cell.cell_contents) for cell in code.__closure__ or ()])


def _described(value):
    value = getattr(value, "py_func", value)
    if hasattr(value, "__code__"):
        return value.__module__, value.__qualname__, value.__code__.co_code, _cells_of(value)
    return value


if not SIMULATED:

    class KernelCache(numba_private.CUDACache):
        """The machine code of a kernel on disk, valid for one state of all sources of the kernels."""

        def __init__(self, code):
            super().__init__(code)
            folder, stem, stamp = numba_private.place_of(self)
            numba_private.set_files(self, KernelFiles(folder, stem, stamp, numba_private.dumps))
            self._cells = repr(_cells_of(code))
            numba_private.forget_cells(self, code)

        def _index_key(self, *args):
            return (*super()._index_key(*args), self._cells)

        def save_overload(self, *args):
            with kept_if_possible():
                super().save_overload(*args)


def kernel(code, **options):
    """A kernel, cached on disk. There is no fastmath: on CUDA it is all or nothing, and would assume that there are no NaNs."""
    if SIMULATED:
        return cuda.jit(code)
    compiled = cuda.jit(**options)(code)
    with kept_if_possible():
        numba_private.set_cache(compiled, KernelCache(code))
    return compiled


def kernel_of(threads, resident):
    """As `kernel`, for blocks of `threads` threads, `resident` of them on a multiprocessor at once: that bounds the registers."""
    return lambda code: kernel(code, launch_bounds=(threads, resident))


def channelwise(arithmetic, outputs, arrays, clamp):
    """The kernel (size, out0, ..., in0, ...) of a formula of numbers (see nbnet.kernels.channelwise)."""
    name = named(arithmetic, arrays, clamp) + "_cuda"
    text = source(name, outputs, arrays, clamp, "for c in range(cuda.grid(1), size, cuda.gridsize(1)):", "size, ")
    scope = {"formula": formula(arithmetic), "within": formula(within)}
    return kernel(from_text(name, text, arithmetic, scope)[name])


def from_text(name, text, formula, scope):
    """What Python text defines that was generated from a formula (see nbnet.kernels.sources.define); it finds `cuda` and `kernel`."""
    scope = {"cuda": cuda, "kernel": kernel, **scope}
    if SIMULATED:
        exec(text, scope)
        return scope
    formula, folder = getattr(formula, "py_func", formula), None
    with kept_if_possible():
        folder = KernelCache(formula).cache_path
    return define(name, text, formula, folder, scope)


def check_count(count, largest=2**32):
    """Refuse more elements than nbnet.kernels.gpu.launch.divide takes, or than another largest number.

    Raises:
        KernelError: there are more.
    """
    if count > largest:
        raise KernelError(f"got {count:,} elements or threads, expected at most {largest:,} on backend 'cuda': use a smaller batch")


@cache
def _configured(compiled, grid, block, stream):
    check_count(math.prod(grid if isinstance(grid, tuple) else (grid,)) * math.prod(block if isinstance(block, tuple) else (block,)))
    with warnings.catch_warnings():  # small layers have small grids: there is nothing that a user could fix
        warnings.simplefilter("ignore", numba_private.NumbaPerformanceWarning)
        return compiled[grid, block, stream]


def configured(compiled, grid, block, stream):
    """The kernel, ready for a launch with this grid and these blocks on a stream."""
    return compiled[grid, block, stream] if SIMULATED else _configured(compiled, grid, block, stream)
