"""How CPU kernels are compiled, in one place.

A kernel is a serial `body` over one chunk and two drivers that call it for each chunk: `..._serial` in a loop and `..._parallel` in a
parallel_for. They are two drivers, not one function jitted twice, because Numba keys its cache by the Python function, so the second
would silently get the machine code of the first (numba issue 6845). Only drivers are cached: a body is linked into them.
"""

import _thread
import os
import threading

from numba import njit

from nbnet.kernels.cpu.cache import KernelCache
from nbnet.kernels.cpu.numba_private import CFunc, global_compiler_lock, llvm_lock, set_cache

# The full "fast" set would let LLVM assume that there are no NaNs and delete the checks for them.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS = {"error_model": "numpy", "no_cfunc_wrapper": True}  # c_function makes what C can call
C_OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}


def _cached(**options):
    def decorate(function):
        kernel = njit(nogil=True, **_OPTIONS, **options)(function)
        set_cache(kernel, KernelCache(function, kernel))
        return kernel

    return decorate


def c_function(signature):
    """Compile, or load from disk, at once: a function with an address that other machine code can call."""

    def decorate(function):
        compiled = CFunc(function, (signature.args, signature.return_type), {}, C_OPTIONS)
        set_cache(compiled, KernelCache(function))
        compiled.compile()
        return compiled

    return decorate


body = njit(fastmath=FASTMATH, **_OPTIONS)
# For a body that calls other large ones: LLVM optimises all code below a call once more per level of calls (0.5 s for the tiles).
inlined = njit(fastmath=FASTMATH, inline="always", **_OPTIONS)
# Without fastmath, which Numba sets on every instruction of a function, and on called functions that do not set it themselves.
precise = njit(fastmath=False, **_OPTIONS)
serial = _cached(fastmath=FASTMATH)
serial_precise = _cached(fastmath=False)
parallel = serial  # with a parallel_for inside: see nbnet.kernels.cpu.parallel_for


_forking = threading.local()


def _wait_for_other_threads():
    """Before a fork: wait until no other thread compiles. Its locks would stay locked in the child, which has only the forking thread.

    Python drops an exception that is raised here, such as that of Ctrl-C: it is raised again after the fork.
    """
    _forking.interrupted, _forking.undo = False, (undo := [])
    try:
        global_compiler_lock.acquire()
        undo.append(global_compiler_lock.release)
        llvm_lock.__enter__()  # in the order in which a thread that compiles takes them
        undo.append(llvm_lock.__exit__)
    except KeyboardInterrupt:
        _forking.interrupted = True


def _go_on():
    for release in reversed(_forking.undo):
        release()


def _go_on_in_parent():
    _go_on()
    if _forking.interrupted:
        threading.Timer(0.01, _thread.interrupt_main).start()  # after this function, where it would be dropped again


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_other_threads, after_in_parent=_go_on_in_parent, after_in_child=_go_on)
