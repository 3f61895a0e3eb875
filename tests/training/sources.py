"""What other libraries give as data, in small."""

import numpy as np


class Stored:
    """Like a data set of h5py: rows by a slice, or by numbers that increase. It notes what was read, and in which thread."""

    def __init__(self, values):
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.most = 0

    def __len__(self):
        return len(self._values)

    def __getitem__(self, rows):
        if not isinstance(rows, slice) and (np.diff(rows) <= 0).any():
            raise TypeError("indexing elements must be in increasing order")
        found = self._values[rows]
        self.most = max(self.most, len(found))
        return found


class Tensor:
    """Like a tensor of another library on the CPU."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return self._values


class Shared:
    """Like an array that can be had by DLPack alone."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()


class Loader:
    """Batches of `size` rows as a list of tensors, in memory that is used for the next batch again."""

    def __init__(self, *arrays, size=10, kind=Tensor):
        self._arrays, self._size, self._kind = arrays, size, kind

    def __len__(self):
        return -(-len(self._arrays[0]) // self._size)

    def __iter__(self):
        memory = [array[: self._size].copy() for array in self._arrays]
        for start in range(0, len(self._arrays[0]), self._size):
            for used, array in zip(memory, self._arrays):
                rows = array[start : start + self._size]
                used[: len(rows)] = rows
            yield [self._kind(used[: len(rows)]) for used in memory]
