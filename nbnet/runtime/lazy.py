"""Arrays that are read batch by batch: those of h5py and zarr, memory maps, images in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from nbnet.errors import DataError
from nbnet.runtime.arrays import on_device

Item = TypeVar("Item")
Check = Callable[[np.ndarray, np.ndarray], None]

VARIABLE = "NBNET_READ_AHEAD"
READ_AHEAD = os.environ.get(VARIABLE, "") != "0"
_END: Any = object()


def is_lazy(value: Any) -> bool:
    """Whether this is an array that is not in memory: it has rows, a shape, a dtype of NumPy and indexing, and is no array of NumPy."""
    if isinstance(value, (np.ndarray, np.generic)) or on_device(value) or hasattr(value, "__array_interface__"):
        return False
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    indexed = hasattr(type(value), "__getitem__") and hasattr(type(value), "__len__")
    return indexed and isinstance(shape, tuple) and len(shape) > 1 and isinstance(dtype, np.dtype)


class Lazy:
    """Rows of an array that is read when it is indexed.

    Args:
        source: has shape, dtype, and indexing by a slice or by increasing row numbers, as h5py has.
        name: what errors call it.
        check: is called with the rows that were read and their numbers.
        rows: (N,) which rows of the source; None for all.
    """

    def __init__(self, source: Any, name: str = "x", check: Check | None = None, rows: np.ndarray | None = None) -> None:
        self.source, self.name, self.check, self.rows = source, name, check, rows
        self.shape = tuple(source.shape) if rows is None else (len(rows), *source.shape[1:])
        self.dtype: np.dtype = source.dtype
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def subset(self, rows: np.ndarray) -> Lazy:
        """These rows of it, which are not read yet."""
        return Lazy(self.source, self.name, self.check, rows if self.rows is None else self.rows[rows])

    def checked(self, name: str, check: Check) -> Lazy:
        """The same rows, under another name and with another check."""
        return Lazy(self.source, name, check, self.rows)

    def __repr__(self) -> str:
        return f"<{type(self.source).__name__}, {self.dtype} {self.shape}, read when it is indexed>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it."""
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The row of a number, the rows of a slice, or of numbers (M,), which may be in any order and repeat.

        Raises:
            DataError: the source gives something else than its shape and dtype say.
        """
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            return self[numbers[None]][0]
        numbers = numbers if self.rows is None else self.rows[numbers]
        if isinstance(rows, slice) and rows.step in (None, 1) and self.rows is None:
            found = np.asarray(self.source[rows])
        else:  # h5py takes only numbers that increase
            increasing, back = np.unique(numbers, return_inverse=True)
            found = np.asarray(self.source[increasing])
            found = found if len(increasing) == len(numbers) and np.array_equal(increasing, numbers) else found[back]
        expected = (len(numbers), *self.shape[1:])
        if found.shape != expected or found.dtype != self.dtype:
            raise DataError(f"{len(numbers)} rows of {self.name} are {found.dtype} {found.shape}, expected {self.dtype} {expected}")
        if self.check is not None:
            self.check(found, numbers)
        return found


def is_read(array: Any) -> bool:
    """Whether rows of an array are read from somewhere: it is Lazy, or lies in a memory map of a file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(array, Lazy)


def ahead(items: Iterator[Item]) -> Generator[Item]:
    """The items, each made by a thread while the caller works with the one before. The thread ends with this generator.

    What making one raises is raised here. With NBNET_READ_AHEAD=0 there is no thread.
    """
    if not READ_AHEAD:
        yield from items
        return
    with ThreadPoolExecutor(1, "nbnet-read-ahead") as thread:
        coming = thread.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, items, _END)
            yield item


class Ahead:
    """An array of which a thread reads rows ahead.

    Args:
        source: an array, Lazy or mapped. wanted: the rows of each access, in order; each is indexed once.
    """

    def __init__(self, source: Any, wanted: Iterable[np.ndarray]) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._read = ahead(source[rows] for rows in wanted)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return next(self._read)

    def close(self) -> None:
        """End the thread."""
        self._read.close()
