"""Copies between the host and a GPU, through pinned memory, which the GPU reads and writes by itself."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
from numba import cuda

from nbnet.kernels.gpu.launches import stream
from nbnet.kernels.size_classes import size_class

PINNED_DOWNLOADS = 1 << 20  # bytes at most: the system cannot use pinned memory otherwise
ALIGNMENT = 256  # bytes; 128-bit loads need a multiple of 16
SMALL = 1 << 12  # bytes


class Staging:
    """Pinned host memory. Once an array for the GPU is copied there, the caller may change it; and the GPU writes there by itself."""

    SLOTS = 4  # per size: the host may be this many uploads ahead of the GPU
    SMALL_SLOTS = 64  # of small sizes, of which a step has several

    def __init__(self) -> None:
        self._slots: defaultdict[int, deque[tuple[Any, np.ndarray]]] = defaultdict(deque)
        self._downloads: defaultdict[int, list[tuple[Any, np.ndarray]]] = defaultdict(list)  # that are over

    def for_download(self, nbytes: int) -> tuple[Any, np.ndarray, Any]:
        """An event, pinned memory, and the list that takes both back."""
        size = size_class(nbytes, ALIGNMENT)
        free = self._downloads[size]
        event, pinned = free.pop() if free else (cuda.event(), cuda.pinned_array(size, np.uint8))
        return event, pinned, free

    def upload(self, array: np.ndarray, flat: Any, on: Any) -> None:
        size = size_class(array.nbytes, ALIGNMENT)
        slots = self._slots[size]
        if len(slots) < (self.SMALL_SLOTS if size <= SMALL else self.SLOTS):
            event, pinned = cuda.event(), cuda.pinned_array(size, np.uint8)
        else:
            event, pinned = slots.popleft()
            event.synchronize()
        source = pinned[: array.nbytes].view(array.dtype)
        np.copyto(source.reshape(array.shape), array)
        flat.copy_to_device(source, stream=on)
        event.record(on)
        slots.append((event, pinned))


@cache
def staging() -> Staging:
    return Staging()


class Download:
    """Copies of arrays on the host, made as soon as the work launched before is done, while the host goes on."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        ends = list(accumulate(-(-array.nbytes // 16) * 16 for array in arrays))
        self._done, self._pinned, self._free = staging().for_download(ends[-1] if ends else 0)
        self._parts = []
        for array, end in zip(arrays, ends):
            start = end - -(-array.nbytes // 16) * 16
            part = self._pinned[start : start + array.nbytes].view(array.dtype)
            if array.size:
                array.flat.copy_to_host(part, stream=stream())
            self._parts.append((part, array.shape))
        self._done.record(stream())

    def arrived(self) -> list[np.ndarray]:
        """The copies; waits for them."""
        self._done.synchronize()
        return [part.reshape(shape).copy() for part, shape in self._parts]

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._done.synchronize()
            self._free.append((self._done, self._pinned))
