"""The three ways in which CPU kernels are compiled, in one place.

A kernel is a serial `body` over one chunk and two drivers that call it, `..._serial` over range and `..._parallel` over
prange. Two drivers and not one function jitted twice: Numba keys its cache by the Python function, so the second would
silently get the first one's machine code (numba issue 6845). Only drivers are cached: a body is linked into them.
"""

from numba import njit

# The full "fast" set would let LLVM assume that there are no NaNs and delete the checks for them.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

body = njit(fastmath=FASTMATH, error_model="numpy")
# A body that calls other large ones: each level of calls has all machine code below it optimised once more (0.5 s for the tiles).
inlined = njit(fastmath=FASTMATH, error_model="numpy", inline="always")
# Without fastmath, which Numba sets on every instruction of a function, and on functions called from it that do not say otherwise.
precise = njit(fastmath=False, error_model="numpy")
serial_precise = njit(fastmath=False, error_model="numpy", nogil=True, cache=True)
serial = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True)
parallel = njit(fastmath=FASTMATH, error_model="numpy", nogil=True, cache=True, parallel=True)
