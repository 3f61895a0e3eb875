"""The buffers of a model on the GPU in one flat array for each dtype, so that one copy is a copy of all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend

ALIGNMENT = 64  # bytes: 128-bit loads need 16


class FlatBuffers(NamedTuple):
    """flats: one array for each dtype. views: parts of them, in the shapes of the buffers."""

    flats: list[Any]
    views: list[Any]

    def memory(self, buffers: Iterable[Any]) -> list[Any]:
        """The arrays that hold these buffers: the flat ones, and buffers that lie elsewhere."""
        own = set(map(id, self.views))
        return [*self.flats, *(array for array in buffers if id(array) not in own)]


def gathered(buffers: Iterable[Any], backend: Backend) -> tuple[FlatBuffers, dict[int, Any]]:
    """New memory for the buffers that are on the GPU, with the same numbers; and the new arrays by the ids of the old ones."""
    by_dtype: dict[Any, list[Any]] = {}
    for array in {id(array): array for array in buffers if on_device(array)}.values():
        by_dtype.setdefault(array.dtype, []).append(array)
    flats, moved = [], {}
    for dtype, arrays in by_dtype.items():
        step, ends = ALIGNMENT // dtype.itemsize, [0]
        for array in arrays:
            ends.append(ends[-1] + -(-array.size // step) * step)
        flats.append(backend.zeros((ends[-1],), dtype))
        for start, array in zip(ends, arrays):
            view = flats[-1][start : start + array.size].reshape(array.shape)
            view[:] = array
            moved[id(array)] = view
    return FlatBuffers(flats, list(moved.values())), moved
