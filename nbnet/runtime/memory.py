"""The caching pool behind Backend.empty: freed blocks are kept and handed out again.

Fresh memory costs page faults, which are 40 % of PyTorch's step on a small CNN. A block returns to the pool when the last
array on it is deleted: arrays view a lease, and the lease's finaliser returns the block. A training step therefore asks the
system for memory once, and later steps allocate nothing large.

When the shapes change all the time, blocks of every size come together. A request that finds no block of its size takes a larger
one, up to twice as large. And before the pool asks for new memory, it returns the blocks of the sizes that were not used for longest,
until it holds at most half as much again as was ever in use at once. `nb.empty_cache()` returns all that is unused.

The environment variable NBNET_MEMORY_POOL=0 turns the pool off: every array is a new one.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from bisect import bisect_right, insort
from collections import defaultdict, deque
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from nbnet.kernels.size_classes import size_class

VARIABLE = "NBNET_MEMORY_POOL"
POOLED = os.environ.get(VARIABLE, "") != "0"
HUGE = 1 << 21  # bytes of a huge page, on x86-64 and on ARM with pages of 4 KiB
PAGE = 4096  # bytes; below this NumPy's own allocator is as fast, and keeping blocks gains nothing
SLACK = 2  # how many times as large as a request a block may be
HELD = 1.5  # how many times as large as what was in use at once the pool may be


class _Lease(np.ndarray):
    """A loan of one block. NumPy replaces the base of a view by its base's base only if both have the same type: neither this
    type nor the block's (an anonymous memory map) is ndarray, so every array on the block keeps the lease alive."""

    _free: deque[mmap.mmap] | None = None

    def __del__(self) -> None:
        if self._free is not None:
            self._free.append(self.base)  # type: ignore[arg-type]


def _map(size: int) -> mmap.mmap:
    """New private memory, in huge pages where the system offers them.

    By default mmap shares memory with forked children, which would write into each other's arrays; on Linux it is also slower: a
    training step of the five-conv network took an eighth longer on it.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows, where no process forks
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a Linux kernel built without them
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def pages(size: int) -> np.ndarray:
    """Bytes of an owner that keeps them, which are 0. The system gives memory when it is first used."""
    return np.frombuffer(_map(-(-size // HUGE) * HUGE if size >= HUGE else size), np.uint8)


class Pool:
    """Blocks of memory by size. `hits` and `misses` count the requests served from kept and from new memory; `bytes` is the size of all
    blocks, `peak` the most that was in use at once."""

    def __init__(self) -> None:
        self._free: dict[int, deque[mmap.mmap]] = defaultdict(deque)
        self._sizes: list[int] = []  # of all blocks, in order
        self._used: dict[int, int] = {}  # by size: `hits` when such a block was last taken
        self.hits = 0
        self.misses = 0
        self.bytes = 0
        self.peak = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised C-contiguous array on a recycled block, page-aligned; a small one is NumPy's own."""
        size = _block_size(shape, dtype)
        if size == 0:
            return np.empty(shape, dtype)
        block = self._take(size)
        size = len(block)
        lease = _Lease((size,), np.uint8, buffer=block)
        lease._free = self._free[size]
        return np.ndarray(shape, dtype, buffer=lease)

    def _take(self, size: int, exact: bool = False) -> mmap.mmap:
        """A block of at least this size, or of exactly this size."""
        self._used[size] = self.hits
        try:
            block = self._free[size].pop()
        except IndexError:
            found = self._take_larger(size)
            if found is not None and exact:  # a new one replaces it
                self.bytes -= len(found)
                found = None
            if found is None:
                return self._new(size)
            block = found
        self.hits += 1
        return block

    def _take_larger(self, size: int) -> mmap.mmap | None:
        for larger in self._sizes[bisect_right(self._sizes, size) :]:
            if larger > SLACK * size:
                break
            with suppress(IndexError):
                block = self._free[larger].pop()
                self._used[larger] = self.hits
                return block
        return None

    def _new(self, size: int) -> mmap.mmap:
        """A new block, for which unused ones of other sizes may go. Only here: a step that needs no new memory returns none."""
        unused = sum(each * len(free) for each, free in list(self._free.items()))
        self.peak = max(self.peak, self.bytes - unused + size)
        for each in sorted(self._sizes, key=self._used.__getitem__):
            self._return(each, self.bytes + size - HELD * self.peak)
        block = _map(size)
        if size not in self._sizes:
            insort(self._sizes, size)
        self.misses += 1
        self.bytes += size
        return block

    def _return(self, size: int, excess: float) -> None:
        """Return unused blocks of this size to the system, until there are none or the excess is gone."""
        free = self._free[size]
        while excess > 0 and free:
            with suppress(IndexError):  # another thread took it
                free.popleft()  # unmapped when nothing refers to it
                self.bytes -= size
                excess -= size

    def clear(self) -> None:
        """Return all unused blocks to the system."""
        for size in self._sizes:
            self._return(size, math.inf)
        self.peak = self.bytes


class _Borrowed(deque[mmap.mmap]):
    """Free blocks of an arena. They return to the pool when neither the arena nor an array on one of its blocks is left."""

    home: deque[mmap.mmap]

    def __del__(self) -> None:
        self.home.extend(self)


class _Borrowing(dict[int, _Borrowed]):
    """The free blocks of an arena, by size."""

    def __init__(self, source: Pool) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, size: int) -> _Borrowed:
        self[size] = borrowed = _Borrowed()
        borrowed.home = self._source._free[size]
        return borrowed


class Arena(Pool):
    """A pool of one owner, on blocks of another pool, to which they return in the end."""

    def __init__(self, source: Pool) -> None:
        super().__init__()
        self._source = source
        self._free = _Borrowing(source)  # type: ignore[assignment]

    def _take(self, size: int, exact: bool = True) -> mmap.mmap:
        """A block of exactly this size. An arena keeps its blocks for long: larger ones would hold up to SLACK times the memory."""
        free = self._free.get(size)
        return free.pop() if free else self._source._take(size, exact)

    def alias(self, array: np.ndarray) -> np.ndarray:
        """An array at the same address that does not keep its block, if the block is the arena's: the arena may lend it again."""
        lease = array.base
        while type(lease) is np.ndarray:  # of a view: an array on the lease
            lease = lease.base
        if type(lease) is not _Lease or lease._free is not self._free.get(lease.size):
            return array
        offset = array.__array_interface__["data"][0] - lease.__array_interface__["data"][0]
        return np.ndarray(array.shape, array.dtype, lease.base, offset, array.strides)


class Scratch(threading.local):
    """Workspaces of kernels, separate for each thread: one piece of memory per purpose, as large as the largest request.

    A kernel is done with its scratch when it returns, so the next one uses the same memory, which is then in the cache.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.pieces: dict[str, np.ndarray] = {}
        self.views: dict[tuple[str, tuple[int, ...], Any], np.ndarray] = {}

    def array(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array, valid until the next call with this purpose."""
        view = self.views.get((purpose, shape, dtype))
        if view is None:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if purpose not in self.pieces or self.pieces[purpose].size < size:
                self.pieces[purpose] = self.pool.empty((size,), np.uint8)
                self.views = {key: array for key, array in self.views.items() if key[0] != purpose}
            view = self.pieces[purpose][:size].view(dtype).reshape(shape)
            self.views[purpose, shape, dtype] = view
        return view

    def clear(self) -> None:
        """Forget the workspaces of this thread."""
        self.pieces, self.views = {}, {}


@lru_cache(1024)
def _block_size(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of the block for an array; 0: no block."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    if nbytes < PAGE or not POOLED:
        return 0
    return size_class(nbytes, PAGE if nbytes < HUGE else HUGE)  # Linux aligns a mapping to huge pages if it is a multiple of them
