"""Kernels on disk, on the CPU: when their machine code is valid, and what must be there before it is loaded."""

from nbnet.errors import BackendError
from nbnet.kernels.cpu.numba_private import FunctionCache, cache_of, dumps, key_of, place_of, set_files
from nbnet.kernels.sources import KernelFiles

compiling_elsewhere = {}  # kernels that another process compiles: functions that wait until it has (nbnet.runtime.compile_ahead)
symbols = {}  # names that machine code on disk may be linked against: functions that define them


def define_symbols(machine_code):
    """Define the symbols that this machine code names."""
    for name, define in symbols.items():
        if name.encode() in machine_code:
            define()


class KernelCache(FunctionCache):
    """The machine code of a function on disk."""

    def __init__(self, function, kernel=None):
        try:
            super().__init__(function)
        except RuntimeError as error:  # Numba found no folder that it can write to
            raise BackendError(f"kernels cannot be kept on disk ({error}): set NUMBA_CACHE_DIR to a folder you can write to") from error
        self.kernel = kernel
        self.files = KernelFiles(*place_of(self), dumps, define_symbols)
        set_files(self, self.files)

    def load_overload(self, *args):
        if self.kernel in compiling_elsewhere:
            compiling_elsewhere[self.kernel]()
            compiling_elsewhere.pop(self.kernel, None)  # only now: if the wait is interrupted, the next caller waits again
        return super().load_overload(*args)


def is_compiled(kernel, types):
    """Whether there is machine code for arguments of these types, in this process or on disk."""
    return types in kernel.overloads or cache_of(kernel).files.path(key_of(kernel, types)).exists()
