"""All names of Numba and llvmlite that are not public API. tests/kernels/cpu/test_numba_private.py says which of them a release
changed."""

from llvmlite.binding.ffi import lib as _llvm
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.np.ufunc.parallel import _launch_threads as launch_threads

__all__ = ["CFunc", "FunctionCache", "dumps", "global_compiler_lock", "launch_threads", "llvm_lock"]

llvm_lock = _llvm._lock  # of all calls of LLVM
COMPILING = global_compiler_lock._lock, llvm_lock._lock  # the locks inside, in the order in which a thread that compiles takes them
GET_NUM_THREADS = "get_num_threads"  # the C function behind numba.get_num_threads, once launch_threads was called


def target_machine():
    """LLVM's description of the processor that Numba compiles for."""
    return cpu_target.target_context.codegen()._tm


def place_of(cache):
    """Folder, stem and source stamp of a function's files on disk."""
    return cache.cache_path, cache._impl.filename_base, cache._impl.locator.get_source_stamp()


def set_files(cache, files):
    """Let a cache keep machine code in these files."""
    cache._cache_file = files


def set_cache(compiled, cache):
    """Let a kernel, or a CFunc, keep its machine code in this cache."""
    compiled._cache = cache


def cache_of(kernel):
    return kernel._cache


def key_of(kernel, types):
    """What the cache calls the machine code for arguments of these types."""
    return kernel._cache._index_key(types, kernel.targetctx.codegen())


def types_of(kernel, args):
    """The Numba types of arguments."""
    return tuple([kernel.typeof_pyval(arg) for arg in args])


def machine_code(function, args):
    """The compiled function for arguments of these types, to skip the type check on each call; else the function itself."""
    overloads = getattr(function, "overloads", {})
    compiled = overloads.get(types_of(function, args)) if overloads else None
    return function if compiled is None else compiled.entry_point


def compile_result(function_type, signature):
    """What Numba compiled for a signature of a jitted function, given as its type."""
    return function_type.dispatcher.get_compile_result(signature)
