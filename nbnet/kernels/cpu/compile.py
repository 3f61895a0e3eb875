"""The ways in which CPU kernels are compiled, in one place.

A kernel is a serial `body` over one chunk and two drivers that call it for each chunk, `..._serial` in a loop and `..._parallel`
in a parallel_for. Two drivers and not one function jitted twice: Numba keys its cache by the Python function, so the second would
silently get the first one's machine code (numba issue 6845). Only drivers are cached: a body is linked into them.
"""

import hashlib
from contextlib import suppress
from functools import partial
from glob import escape
from pathlib import Path

from numba import njit
from numba.core.ccallback import CFunc

# The full "fast" set would let LLVM assume that there are no NaNs and delete the checks for them.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS = {"error_model": "numpy", "no_cfunc_wrapper": True}  # for C there is c_function
C_OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}


def digest(folder):
    """Of all Python sources in a folder and below it."""
    sources = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.py")):
        sources.update(path.read_bytes())
    return sources.hexdigest()


SOURCES = digest(Path(__file__).parents[1])


def follows_sources(kernel):
    """A kernel whose machine code on disk is good until any source of the kernels changes.

    Numba looks at the file of the function alone. But code of other files is compiled into it, and machine code that cuts an array
    into chunks by last week's rule writes past the end of this week's scratch.
    """
    index = kernel._cache._cache_file
    index._source_stamp = (SOURCES, index._source_stamp)
    index.save = partial(_save, index)
    return kernel


def _save(index, key, data):
    """Save machine code, beside other processes that do so at the same time.

    Numba numbers its files, and writes the index first: of two processes that save at once, one gets an entry with the other's code,
    and one that is killed between the two leaves an entry with last week's. Here the name of a file says what is in it.
    """
    stem = index._index_name.removesuffix(".nbi")
    if not index._load_index():  # what is there is of other sources
        for old in Path(index._cache_path).glob(f"{escape(stem)}.*.nbc"):
            with suppress(OSError):
                old.unlink()
    name = f"{stem}.{hashlib.sha256(repr((index._source_stamp, key)).encode()).hexdigest()[:16]}.nbc"
    index._save_data(name, data)
    overloads = index._load_index()
    overloads[key] = name
    index._save_index(overloads)  # an entry of another process that is lost here is compiled again


elsewhere = {}  # kernels that another process compiles: functions that wait until it has (nbnet/ahead.py)


def is_kept(kernel, types):
    """Whether machine code for arguments of these types is here, or in the cache on disk."""
    cache = kernel._cache
    return types in kernel.overloads or cache._index_key(types, kernel.targetctx.codegen()) in cache._cache_file._load_index()


def _kept(**options):
    def decorate(function):
        kernel = follows_sources(njit(nogil=True, cache=True, **_OPTIONS, **options)(function))
        load = kernel._cache.load_overload

        def load_overload(*args):
            if kernel in elsewhere:
                elsewhere[kernel]()
                elsewhere.pop(kernel, None)  # only now: who is interrupted while he waits, waits again
            return load(*args)

        kernel._cache.load_overload = load_overload
        return kernel

    return decorate


def c_function(signature):
    """Compiled, or loaded from disk, at once: a function with an address that other machine code can call."""

    def decorate(function):
        compiled = CFunc(function, (signature.args, signature.return_type), {}, C_OPTIONS)
        compiled.enable_caching()
        follows_sources(compiled).compile()
        return compiled

    return decorate


body = njit(fastmath=FASTMATH, **_OPTIONS)
# A body that calls other large ones: each level of calls has all machine code below it optimised once more (0.5 s for the tiles).
inlined = njit(fastmath=FASTMATH, inline="always", **_OPTIONS)
# Without fastmath, which Numba sets on every instruction of a function, and on functions called from it that do not say otherwise.
precise = njit(fastmath=False, **_OPTIONS)
serial = _kept(fastmath=FASTMATH)
serial_precise = _kept(fastmath=False)
