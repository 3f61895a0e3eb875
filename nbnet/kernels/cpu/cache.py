"""Kernels on disk, on the CPU: when their machine code is valid, and what must be there before it is loaded."""

from nbnet.kernels.cpu.numba_private import FunctionCache, cache_of, dumps, key_of, place_of, set_cache, set_files
from nbnet.kernels.sources import KernelFiles, kept_if_possible

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
        super().__init__(function)
        self.kernel = kernel
        self.files = KernelFiles(*place_of(self), dumps, define_symbols)
        set_files(self, self.files)

    def load_overload(self, *args):
        if self.kernel in compiling_elsewhere:
            compiling_elsewhere[self.kernel]()
            compiling_elsewhere.pop(self.kernel, None)  # only now: if the wait is interrupted, the next caller waits again
        return super().load_overload(*args)

    def save_overload(self, *args):
        with kept_if_possible():
            super().save_overload(*args)


def keep(compiled, function, kernel=None):
    """Keep the machine code of a function on disk, if there is a folder for it."""
    with kept_if_possible():
        set_cache(compiled, KernelCache(function, kernel))


def folder_of(function):
    """Where the machine code of a function is kept, or None."""
    with kept_if_possible():
        return KernelCache(function).cache_path
    return None


def is_missing(kernel, types):
    """Whether machine code for arguments of these types could be on disk, but is neither there nor in this process."""
    cache = cache_of(kernel)
    return isinstance(cache, KernelCache) and types not in kernel.overloads and not cache.files.path(key_of(kernel, types)).exists()
