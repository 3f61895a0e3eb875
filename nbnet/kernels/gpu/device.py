"""Memory on a CUDA GPU: arrays and a caching pool, all in the order of one stream.

All work of nbnet on a GPU goes to one stream, so a block that is freed on the host can be reused at once: its next user runs after the
previous one. So steps in steady state allocate nothing. Only uploads may use a second stream, in parallel with kernels; events order
their blocks with the first stream. With NUMBA_ENABLE_CUDASIM=1 the same code runs in Numba's simulator.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from nbnet.errors import BackendError
from nbnet.kernels.gpu import launches, transfers
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launches import copy_stream, launch, refuse_download, stream, synchronize
from nbnet.kernels.gpu.transfers import ALIGNMENT, PINNED_DOWNLOADS, Download
from nbnet.kernels.size_classes import size_class


@kernel
def _fill(flat, size, value):
    if cuda.grid(1) < size:  # type: ignore[call-arg]
        flat[cuda.grid(1)] = value


class _Lease:
    """The use of one block, which returns to the pool when the last array on it is freed."""

    __slots__ = ("block", "free")

    def __init__(self, block: _Block, free: list[_Block]) -> None:
        self.block = block
        self.free = free

    def __del__(self) -> None:
        self.free.append(self.block)


class _Block:
    """Bytes on the device, and typed views of them, cached because Numba takes longer to make a view than to launch a kernel."""

    __slots__ = ("bytes", "views")

    def __init__(self, size: int) -> None:
        self.bytes = cuda.device_array(size, np.uint8)
        self.views: dict[tuple[np.dtype, int], Any] = {}

    def view(self, dtype: np.dtype, size: int) -> Any:
        key = (dtype, size)
        if key not in self.views:
            self.views[key] = self.bytes[: max(size, 1) * dtype.itemsize].view(dtype)
        return self.views[key]


class DeviceArray:
    """A C-contiguous array on the GPU. Its memory is flat, so a reshape costs nothing and kernels see one layout.

    `np.asarray(array)` copies it to the host and waits for the copy. `array[2:5] = values` copies from the host or the device;
    `array[2:5]` returns rows. Arithmetic is done by kernels.
    """

    on_device = True
    __array_ufunc__ = None  # NumPy's functions refuse it instead of silently copying it
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
            raise ValueError("got copy=False for an array on the GPU, expected True or None: it has no view on the host")
        return to_host(self).astype(dtype or self.dtype, copy=False)

    def reshape(self, *shape: Any) -> DeviceArray:
        """A view of another shape; one size may be -1."""
        new = tuple(int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], Iterable) else shape))
        known = math.prod(n for n in new if n != -1)
        if -1 in new:
            new = tuple(self.size // max(known, 1) if n == -1 else n for n in new)
        if math.prod(new) != self.size:
            raise ValueError(f"cannot reshape {self.shape} to {new}: expected a shape of {self.size} elements")
        return DeviceArray(self.flat, new, self.dtype, self.lease)

    def copy(self) -> DeviceArray:
        result = pool().empty(self.shape, self.dtype)
        result[:] = self
        return result

    def __getitem__(self, rows: slice) -> DeviceArray:
        """Consecutive rows are a view if they are aligned to 16 bytes; other rows, such as [::2], are a copy."""
        numbers = self._rows(rows)
        shape, whole = (len(numbers), *self.shape[1:]), len(numbers) == self.shape[0]
        if whole and numbers.step == 1:
            return DeviceArray(self.flat, shape, self.dtype, self.lease)
        first = numbers.start * (self.size // self.shape[0])
        if numbers.step == 1 and first * self.dtype.itemsize % 16 == 0:
            return DeviceArray(self.flat[first : first + math.prod(shape)], shape, self.dtype, self.lease)
        part = pool().empty(shape, self.dtype)
        if numbers.step == 1 and part.size:
            launches.copy(self.flat[first : first + part.size], part.flat)
            return part
        for i, row in enumerate(numbers):
            launches.copy(self._row(row), part._row(i))
        return part

    def __setitem__(self, where: Any, value: Any) -> None:
        numbers = self._rows(slice(None) if where is Ellipsis else where)
        shape = (len(numbers), *self.shape[1:])
        if not isinstance(value, DeviceArray) and np.ndim(value) == 0 and shape == self.shape:
            if self.size:
                launch(_fill, -(-self.size // 256), min(self.size, 256), self.flat, self.size, self.dtype.type(value))
            return
        if not isinstance(value, DeviceArray):
            value = to_device(np.array(np.broadcast_to(value, shape), self.dtype))
        if value.shape != shape or value.dtype != self.dtype:
            raise ValueError(f"cannot assign {value} to rows of {self}, expected shape {shape} and dtype {self.dtype}")
        if shape == self.shape and numbers.step == 1:
            launches.copy(value.flat, self.flat)
            return
        for i, row in enumerate(numbers):
            launches.copy(value._row(i), self._row(row))

    def _rows(self, where: Any) -> range:
        if not isinstance(where, slice):
            raise IndexError(f"got index [{where!r}] of an array on the GPU, expected a slice of its rows: use np.asarray to copy it")
        return range(*where.indices(self.shape[0]))

    def _row(self, row: int) -> Any:
        width = self.size // self.shape[0]
        return self.flat[row * width : (row + 1) * width]


class Pool:
    """Blocks of device memory by size. `hits` and `misses` count the requests served from cached and from new memory."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[_Block]] = defaultdict(list)
        self._blocks: set[_Block] = set()  # all, so that the garbage collector, which breaks cycles such as tracebacks, frees no memory
        self.hits = 0
        self.misses = 0
        self.bytes = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """An uninitialised array.

        Raises:
            BackendError: the GPU is out of memory.
        """
        dtype = np.dtype(dtype)
        shape = tuple(int(n) for n in shape)
        count = math.prod(shape)
        size = size_class(count * dtype.itemsize, ALIGNMENT)
        free = self._free[size]
        recording = launches.active()
        if recording is not None and recording.under_way:
            free = recording.free(size, free)
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
            self.clear()  # free cached blocks of other sizes
            try:
                block = _Block(size)
            except Exception as again:
                if not out_of_memory(again):
                    raise
                raise BackendError(_out_of_memory_message(size, self.bytes)) from error
        self.misses += 1
        self.bytes += size
        self._blocks.add(block)
        return block

    def clear(self) -> None:
        """Return all unused blocks to the driver."""
        synchronize()
        for size, free in self._free.items():
            self.bytes -= size * len(free)
            self._blocks.difference_update(free)
            free.clear()


@cache
def pool() -> Pool:
    """The one pool, shared by models and the scratch of kernels."""
    return Pool()


def out_of_memory(error: Exception) -> bool:
    return "OUT_OF_MEMORY" in str(error).upper()


def _out_of_memory_message(size: int, held: int) -> str:
    free, total = cuda.current_context().get_memory_info()
    return (
        f"the GPU is out of memory: {size / 2**20:,.1f} MiB were requested, {free / 2**20:,.1f} of {total / 2**20:,.1f} MiB are free "
        f"and nbnet holds {held / 2**20:,.1f}: use a smaller batch, or accumulate= in Trainer"
    )


def to_device(array: np.ndarray) -> DeviceArray:
    """A copy of a host array; returns before the copy is complete.

    Raises:
        BackendError: a recording is under way, which would have the same numbers each time.
    """
    recording = launches.active()
    if recording is not None:
        if not recording.in_section:
            raise BackendError(
                "a step that becomes a CUDA graph copied an array to the GPU, expected kernels alone: use Trainer(graph=False), "
                "or leave out what computes on the host"
            )
        return numbers(array)
    result = pool().empty(array.shape, array.dtype)
    if array.size:
        transfers.staging().upload(array, result.flat, stream())
    return result


def numbers(array: np.ndarray) -> DeviceArray:
    """A copy of a host array that a kernel reads, and whose numbers may change from step to step: a recording uploads them each time."""
    recording = launches.active()
    if recording is None:
        return to_device(array)
    flat = recording.slot(array, _bytes)
    if recording.under_way and array.size:
        transfers.staging().upload(array, flat, stream())
    return DeviceArray(flat, array.shape, array.dtype, None)


def _bytes(size: int) -> DeviceArray:
    """Memory of slots, which are uploaded before the recorded launches: none of these may have used it."""
    with launches.unrecorded():
        return pool().empty((size,), np.uint8)


class Upload:
    """A copy of a host array that is uploaded while kernels run; the caller may change the host array at once.

    Kernels launched earlier may still read its block, so the copy waits for them. Kernels launched after `arrived`, or after the upload
    was dropped, wait for the copy.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._done = cuda.event()
        self._array = pool().empty(array.shape, array.dtype)
        self._done.record(stream())
        self._done.wait(copy_stream())
        transfers.staging().upload(array, self._array.flat, copy_stream())
        self._done.record(copy_stream())

    def arrived(self) -> DeviceArray:
        """The array on the GPU; the host does not wait for it."""
        self._done.wait(stream())
        return self._array

    def __del__(self) -> None:
        self._done.wait(stream())


def to_host_all(arrays: Sequence[DeviceArray]) -> list[np.ndarray]:
    """Copies of arrays on the host; waits once, for all work launched before."""
    if arrays:
        refuse_download()
    if sum(array.nbytes for array in arrays) <= PINNED_DOWNLOADS:
        return Download(arrays).arrived()
    results = [np.empty(array.size, array.dtype) for array in arrays]
    for array, result in zip(arrays, results):
        if array.size:
            array.flat.copy_to_host(result, stream=stream())
    synchronize()
    return [result.reshape(array.shape) for array, result in zip(arrays, results)]


def to_host(array: DeviceArray) -> np.ndarray:
    """A copy of an array on the host; waits for all work launched before."""
    return to_host_all([array])[0]
