"""Memory on a CUDA GPU: arrays, a caching pool and copies, all in the order of one stream.

Everything that nbnet does on a GPU goes to one stream, so a block that is freed on the host may be handed out again at once:
whoever gets it works after whoever had it. Steps in steady state therefore allocate nothing. With NUMBA_ENABLE_CUDASIM=1 the
same code runs in Numba's simulator.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.core import config

from nbnet.errors import BackendError

SIMULATED = bool(config.ENABLE_CUDASIM)
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small layers have small grids: nothing that a user could mend

ALIGNMENT = 256  # bytes; every array starts on a multiple of 16, which 128-bit loads need


@cache
def stream() -> Any:
    """The one stream."""
    return cuda.stream()


class _Lease:
    """A loan of one block, given back when the last array on it dies."""

    __slots__ = ("block", "free")

    def __init__(self, block: _Block, free: list[_Block]) -> None:
        self.block = block
        self.free = free

    def __del__(self) -> None:
        self.free.append(self.block)


class _Block:
    """Bytes on the device, and the typed views of them that were asked for: Numba takes longer to make a view than we to launch."""

    __slots__ = ("bytes", "views")

    def __init__(self, size: int) -> None:
        self.bytes = cuda.device_array(size, np.uint8)
        self.views: dict[tuple[np.dtype, int], Any] = {}

    def view(self, dtype: np.dtype, size: int) -> Any:
        key = (dtype, size)
        if key not in self.views:
            self.views[key] = self.bytes[: size * dtype.itemsize].view(dtype)
        return self.views[key]


class DeviceArray:
    """A C-contiguous array on the GPU. Underneath it is flat, so a reshape costs nothing and kernels see one layout.

    `np.asarray(array)` copies it to the host, and waits for it. `array[:] = values` copies from the host or the device;
    `array[2:5]` is a view of rows (a copy, where they do not start on 16 bytes). Arithmetic is the kernels' business.
    """

    __array_ufunc__ = None  # NumPy's functions refuse it instead of copying it behind one's back
    __slots__ = ("dtype", "flat", "lease", "shape", "size")

    def __init__(self, flat: Any, shape: tuple[int, ...], dtype: np.dtype, lease: Any) -> None:
        self.flat = flat
        self.shape = shape
        self.dtype = dtype
        self.size = math.prod(shape)
        self.lease = lease

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on the GPU has no view on the host: leave copy=False out")
        return to_host(self).astype(dtype or self.dtype, copy=False)

    def reshape(self, *shape: Any) -> DeviceArray:
        """A view of another shape; one size may be -1."""
        wanted = tuple(int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], Iterable) else shape))
        known = math.prod(n for n in wanted if n != -1)
        if -1 in wanted:
            wanted = tuple(self.size // max(known, 1) if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape {self.shape} to {wanted}")
        return DeviceArray(self.flat, wanted, self.dtype, self.lease)

    def copy(self) -> DeviceArray:
        result = pool().empty(self.shape, self.dtype)
        result[:] = self
        return result

    def __getitem__(self, rows: slice) -> DeviceArray:
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise IndexError(f"rows {rows}: an array on the GPU gives views of neighbouring rows only")
        count, width = max(0, stop - start), self.size // max(1, self.shape[0])
        shape = (count, *self.shape[1:])
        if count == self.shape[0]:
            return DeviceArray(self.flat, shape, self.dtype, self.lease)
        part = DeviceArray(self.flat[start * width : (start + count) * width], shape, self.dtype, self.lease)
        return part if start * width * self.dtype.itemsize % 16 == 0 else part.copy()

    def __setitem__(self, where: Any, value: Any) -> None:
        if where != slice(None) and where is not Ellipsis:
            raise IndexError("an array on the GPU is assigned as a whole: array[:] = values")
        if isinstance(value, DeviceArray):
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(f"cannot assign {value} to {self}")
            source = value.flat
        else:
            source = np.array(np.broadcast_to(value, self.shape), self.dtype).reshape(-1)
        if self.size:
            self.flat.copy_to_device(source, stream=stream())
            if not isinstance(value, DeviceArray):
                synchronize()  # the host's copy must outlive the transfer


class Pool:
    """Blocks of device memory by size. `hits` and `misses` count the requests served from kept and from new memory."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[_Block]] = defaultdict(list)
        self.hits = 0
        self.misses = 0
        self.bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """An uninitialised array.

        Raises:
            BackendError: the GPU has not enough memory.
        """
        dtype = np.dtype(dtype)
        shape = tuple(int(n) for n in shape)
        count = math.prod(shape)
        size = _size_class(count * dtype.itemsize)
        free = self._free[size]
        try:
            block = free.pop()
            self.hits += 1
        except IndexError:
            block = self._new(size)
        return DeviceArray(block.view(dtype, count), shape, dtype, _Lease(block, free))

    def _new(self, size: int) -> _Block:
        try:
            block = _Block(size)
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.clear()  # what is kept of other sizes may be enough
            try:
                block = _Block(size)
            except Exception as again:
                if not out_of_memory(again):
                    raise
                raise BackendError(_no_room(size, self.bytes)) from error
        self.misses += 1
        self.bytes += size
        return block

    def clear(self) -> None:
        """Give all blocks that nothing uses back to the driver."""
        synchronize()
        for size, free in self._free.items():
            self.bytes -= size * len(free)
            free.clear()


@cache
def pool() -> Pool:
    """The one pool, which models and the kernels' scratch share."""
    return Pool()


def out_of_memory(error: Exception) -> bool:
    return "OUT_OF_MEMORY" in str(error).upper()


def _no_room(size: int, held: int) -> str:
    free, total = cuda.current_context().get_memory_info()
    return (
        f"the GPU is out of memory: {size / 2**20:,.1f} MiB were asked for, {free / 2**20:,.1f} of {total / 2**20:,.1f} MiB are free "
        f"and nbnet holds {held / 2**20:,.1f}: use a smaller batch, or accumulate= in Trainer"
    )


def _size_class(nbytes: int) -> int:
    """Round up to four steps a power of two, so that batches of nearly the same size share blocks."""
    step = max(ALIGNMENT, 1 << max(0, nbytes.bit_length() - 3))
    return max(1, -(-nbytes // step)) * step


def to_device(array: np.ndarray) -> DeviceArray:
    """A copy of a host array."""
    result = pool().empty(array.shape, array.dtype)
    result[:] = array
    return result


def to_host(array: DeviceArray) -> np.ndarray:
    """A copy on the host; waits for what was launched before."""
    result = np.empty(array.size, array.dtype)
    if array.size:
        array.flat.copy_to_host(result, stream=stream())
        synchronize()
    return result.reshape(array.shape)


def synchronize() -> None:
    """Wait until the GPU has done all that was launched."""
    stream().synchronize()
