"""How CPU kernels are compiled, in one place.

A kernel is a serial `body` over one chunk and two drivers that call it for each chunk: `..._serial` in a loop and `..._parallel` in a
parallel_for. They are two drivers, not one function jitted twice, because Numba keys its cache by the Python function, so the second
would silently get the machine code of the first (numba issue 6845). Only drivers are cached, and only they are optimised and become
machine code: a body is linked into them.
"""

import ctypes
import os
import threading
from functools import partial
from itertools import starmap

from numba import njit

from nbnet.kernels.cpu.cache import keep
from nbnet.kernels.cpu.numba_private import COMPILING, CFunc, KernelCompiler, LinkedCompiler

# The full "fast" set would let LLVM assume that there are no NaNs and delete the checks for them.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS = {"error_model": "numpy"}
C_OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}


def _cached(**options):
    def decorate(function):
        kernel = njit(nogil=True, pipeline_class=KernelCompiler, **_OPTIONS, **options)(function)
        keep(kernel, function, kernel)
        return kernel

    return decorate


def c_function(signature):
    """Compile, or load from disk, at once: a function with an address that other machine code can call."""

    def decorate(function):
        compiled = CFunc(function, (signature.args, signature.return_type), {}, C_OPTIONS)
        keep(compiled, function)
        compiled.compile()
        return compiled

    return decorate


_LINKED = _OPTIONS | {"pipeline_class": LinkedCompiler, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
body = njit(fastmath=FASTMATH, **_LINKED)
# Numba inlines it before LLVM sees it: a step of a convolutional network takes 1 % less time so, a single kernel up to 5 %.
inlined = njit(fastmath=FASTMATH, inline="always", **_LINKED)
# Without fastmath, which Numba sets on every instruction of a function, and on called functions that do not set it themselves.
precise = njit(fastmath=False, **_LINKED)
serial = _cached(fastmath=FASTMATH)
serial_precise = _cached(fastmath=False)
parallel = serial  # with a parallel_for inside: see nbnet.kernels.cpu.parallel_for


_holding = None  # while a process forks: a generator that holds the locks of compilation
_interrupts = []  # arguments of _raise_in, for what was raised while a fork waited
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


def _no_thread_compiles():
    """Holds the locks until it is deleted. A signal's handler cannot run between the acquisition of a C lock and the `with`."""
    with COMPILING[0], COMPILING[1]:
        yield


def _wait_for_other_threads():
    """Before a fork: wait until no other thread compiles. Its locks would stay locked in the child, which has only the forking thread.

    Python drops an exception that is raised here, such as that of Ctrl-C, and forks. So the wait goes on, and the parent raises it later.
    """
    global _holding
    while True:
        waiting = _no_thread_compiles()
        try:
            next(waiting)
            _holding = waiting
            return
        except BaseException as error:
            _interrupts.append((ctypes.c_ulong(threading.get_ident()), ctypes.py_object(type(error))))
            del waiting


_go_on = partial(globals().__setitem__, "_holding", None)  # not Python code, which an interrupt could end before it has done this


def _raise_again():
    raised = _interrupts.copy()
    _interrupts.clear()
    return [*starmap(_raise_in, raised)]  # Python would raise it here after a call, but not after this


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_other_threads, after_in_parent=_go_on, after_in_child=_go_on)
    os.register_at_fork(after_in_parent=_raise_again, after_in_child=_interrupts.clear)
