"""All names of numba-cuda that are not public API. tests/kernels/gpu/test_numba_private.py says which of them a release changed."""

from typing import Any

from numba.cuda.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)

if SIMULATED:

    def numbers_of(array):
        """The NumPy array behind an array of the simulator; its shared arrays are NumPy's."""
        return array._item._ary if hasattr(array, "_item") else array

else:
    from types import SimpleNamespace

    import numpy as np
    from numba import cuda
    from numba.cuda.core.errors import NumbaPerformanceWarning
    from numba.cuda.dispatcher import CUDACache
    from numba.cuda.np.numpy_support import from_dtype
    from numba.cuda.serialize import dumps

    types: Any = cuda.types  # which mypy does not know

    __all__ = ["SIMULATED", "CUDACache", "NumbaPerformanceWarning", "dumps"]

    def place_of(cache):
        """Folder, stem and source stamp of a function's files on disk."""
        return cache.cache_path, cache._impl.filename_base, cache._impl.locator.get_source_stamp()

    def set_files(cache, files):
        """Let a cache keep machine code in these files."""
        cache._cache_file = files

    def forget_cells(cache, code):
        """Let a cache make keys without what the cells of its function hold."""
        cache._py_func = SimpleNamespace(__code__=code.__code__, __closure__=None)

    def set_cache(kernel, cache):
        """Let a kernel keep its machine code in this cache."""
        kernel._cache = cache

    def types_of(args):
        """The types of a launch's arguments: numbers, tuples of whole numbers, and arrays, of which only the dtype matters."""
        return tuple(map(_type_of, args))

    def _type_of(value):
        if isinstance(value, np.generic):
            return from_dtype(value.dtype)
        if isinstance(value, tuple):
            return types.UniTuple(types.int64, len(value))
        if hasattr(value, "dtype"):
            return types.Array(from_dtype(value.dtype), 1, "C")
        return {bool: types.boolean, int: types.int64, float: types.float64}[type(value)]
