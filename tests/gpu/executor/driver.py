"""The host's side of numba.cuda without a driver: memory, streams that are always done, and launches that run on the CPU."""

import ctypes
import os
from contextlib import contextmanager

import numpy as np
from numba import cuda
from numba.cuda import dispatcher as dispatchers

from . import runtime
from .compiled import CTYPES, load
from .faults import KernelFault, Named, describe
from .lowering import CAPABILITY

FORWARD, BACKWARD, RANDOM = range(3)
SEED = 20261121  # of the random order
GRID_LIMITS, BLOCK_LIMITS, THREADS = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 1024
_order = FORWARD  # of threads and blocks


@contextmanager
def order(how):
    """Run threads in another order, which must not change a bit of what kernels write."""
    global _order
    before, _order = _order, how
    try:
        yield
    finally:
        _order = before


class Array:
    """What numba's DeviceNDArray is to nbnet: flat and contiguous."""

    def __init__(self, memory, offset, size, dtype):
        self.memory, self.offset, self.size, self.dtype = memory, offset, size, np.dtype(dtype)
        self.shape, self.nbytes = (size,), size * self.dtype.itemsize

    def numpy(self):
        """The same memory on the host."""
        return np.frombuffer((ctypes.c_char * self.nbytes).from_address(self.memory.at + self.offset), self.dtype, self.size)

    def mark(self, known):
        self.memory.mark(self.offset, self.nbytes, known)

    def __getitem__(self, where):
        start, stop, step = where.indices(self.size)
        assert step == 1
        return Array(self.memory, self.offset + start * self.dtype.itemsize, max(0, stop - start), self.dtype)

    def view(self, dtype):
        return Array(self.memory, self.offset, self.nbytes // np.dtype(dtype).itemsize, dtype)

    def copy_to_device(self, source, stream=0):
        source = source.numpy() if isinstance(source, Array) else np.asarray(source)
        assert (source.dtype, source.size) == (self.dtype, self.size)
        self.numpy()[...] = source.reshape(-1)
        self.mark(runtime.READABLE)

    def copy_to_host(self, target, stream=0):
        assert (target.dtype, target.size) == (self.dtype, self.size)
        target.reshape(-1)[...] = self.numpy()


def _flattened(values):
    """Numbers and addresses as kernels take them; an array is (allocation, owner, size, item size, address, shape, stride)."""
    for value in values:
        if isinstance(value, Array):
            yield from (0, 0, value.size, value.dtype.itemsize, value.memory.at + value.offset, value.size, value.dtype.itemsize)
        elif isinstance(value, tuple):
            yield from value
        else:
            yield value.item() if isinstance(value, np.generic) else value


class Launch:
    """kernel[grid, block, stream]"""

    def __init__(self, kernel, grid, block, stream=0, sharedmem=0):
        self.kernel, self.grid, self.block = kernel, _three(grid), _three(block)
        threads = np.prod(self.block)
        bounds = kernel.targetoptions.get("launch_bounds") or THREADS
        most = bounds[0] if isinstance(bounds, tuple) else bounds
        for what, numbers, limits in (("grid", self.grid, GRID_LIMITS), ("block", self.block, BLOCK_LIMITS)):
            if not all(1 <= number <= limit for number, limit in zip(numbers, limits)):
                raise KernelFault(f"kernel {self._name}: got {what} {numbers}, expected numbers from 1 to {limits}")
        if threads > most:
            raise KernelFault(f"kernel {self._name}: got {threads} threads in a block, expected at most {most}")
        assert not sharedmem, "the executor has no dynamic shared memory"

    @property
    def _name(self):
        return f"{self.kernel.py_func.__module__}.{self.kernel.py_func.__qualname__}"

    def __call__(self, *args):
        from nbnet.kernels.gpu.numba_private import types_of  # after install

        loaded = load(self.kernel, types_of(args))
        code = loaded.code
        values = [CTYPES[kind](value) for kind, value in zip(code.kinds, _flattened(args), strict=True)]
        places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        regions = [arg.memory.region(arg.offset, arg.nbytes) for arg in args if isinstance(arg, Array)]
        for variable, memory in zip(code.variables, loaded.memory):
            regions.append(memory.region(0, variable.size, runtime.SHARED if variable.shared else runtime.CONSTANTS, variable.alignment))
        regions = (runtime.Region * len(regions))(*regions)
        grid, block = (ctypes.c_int32 * 3)(*self.grid), (ctypes.c_int32 * 3)(*self.block)
        if runtime.library().gpu_launch(loaded.entry, places, loaded.registers, grid, block, regions, len(regions), _order, SEED):
            variables = [Named(v.shown, v.size, 0, "shared array" if v.shared else "constants") for v in code.variables]
            message = describe(runtime.report(), self._name, self.block, [*self._named(args), *variables], code.places)
            raise KernelFault(message)

    def _named(self, args):
        code = self.kernel.py_func.__code__
        return [Named(name, arg.nbytes, arg.dtype.itemsize, "array") for name, arg in zip(code.co_varnames, args) if isinstance(arg, Array)]


def _three(numbers):
    numbers = tuple(numbers) if isinstance(numbers, tuple) else (numbers,)
    return tuple(int(number) for number in numbers) + (1,) * (3 - len(numbers))


class _Stream:
    def synchronize(self):
        pass


class _Event:
    def record(self, stream=0):
        pass

    wait = record

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1.0


class _Device:
    name = "the executor of nbnet's tests"
    compute_capability = CAPABILITY

    def get_memory_info(self):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return free, 2 * free


def _with_lines(create):
    """The constructor of a dispatcher, whose code then knows its lines."""

    def constructor(self, py_func, targetoptions, *args, **options):
        create(self, py_func, targetoptions | {"lineinfo": True}, *args, **options)

    return constructor


def install():
    """Let numba.cuda run kernels here. Must come before the kernels are declared."""
    dispatcher = dispatchers.CUDADispatcher
    dispatcher.__init__ = _with_lines(dispatcher.__init__)
    dispatcher.configure = Launch
    dispatcher.__getitem__ = lambda self, args: Launch(self, *args)
    dispatchers.get_current_device = cuda.get_current_device = cuda.current_context = _Device
    cuda.stream = _Stream
    cuda.event = lambda timing=True: _Event()
    cuda.device_array = lambda size, dtype: Array(runtime.Memory(size * np.dtype(dtype).itemsize), 0, size, dtype)
    cuda.pinned_array = np.empty
    cuda.is_available = lambda: True
    cuda.gpus = [_Device()]
    cuda.runtime.get_version = cuda.cudadrv.driver.get_version = lambda: (12, 0)
    _watch_the_pool()


def _watch_the_pool():
    """Memory that nbnet's pool hands out again holds nothing that may be read."""
    from nbnet.kernels.gpu import device

    empty = device.Pool.empty

    def unwritten(self, shape, dtype):
        array = empty(self, shape, dtype)
        array.flat.numpy().view(np.uint8)[...] = 0xFF
        array.flat.mark(runtime.UNWRITTEN)
        return array

    device.Pool.empty = unwritten
