"""All names of Numba and llvmlite that are not public API. tests/kernels/cpu/test_numba_private.py says which of them a release
changed."""

import ctypes
import gc
from functools import partial

from llvmlite import ir
from llvmlite.binding.ffi import lib as _llvm
from numba._dynfunc import make_function
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.np.arrayobj import populate_array
from numba.np.ufunc.parallel import _launch_threads as launch_threads

__all__ = ["CFunc", "FunctionCache", "dumps", "global_compiler_lock", "launch_threads", "llvm_lock", "populate_array"]

llvm_lock = _llvm._lock  # of all calls of LLVM
COMPILING = global_compiler_lock._lock, llvm_lock._lock  # the locks inside, in the order in which a thread that compiles takes them
BAD_ARGUMENT = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
GET_NUM_THREADS = "get_num_threads"  # the C function behind numba.get_num_threads, once launch_threads was called


class KernelCompiler(Compiler):
    """Compiles kernels. There are no reference cycles to collect until the end, and to look for them takes a sixth of the time.

    In place of Numba's function for callers in C, each has one that reads its arguments from memory (`packed`)."""

    def __init__(self, *args):
        super().__init__(*args)
        context = self.state.targetctx  # a copy for this compilation
        context.create_cfunc_wrapper = partial(_read_arguments, context)

    def compile_extra(self, function):
        collects = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if collects:
                gc.enable()


class LinkedCompiler(Compiler):
    """Compiles functions that only kernels call. They are optimised and become machine code where they are called, and only there."""

    def __init__(self, *args):
        super().__init__(*args)
        context = self.state.targetctx  # a copy for this compilation
        self.state.library = _LinkedLibrary(context.codegen(), "linked")
        context.get_executable = _refuse_calls


class _LinkedLibrary(JITCodeLibrary):
    def _optimize_final_module(self):
        """Not here."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


def _refuse_calls(library, descriptor, environment):
    """A function for Python that raises a TypeError: it sets one and returns 0."""
    return make_function(descriptor.lookup_module(), descriptor.qualname, "part of kernels", BAD_ARGUMENT, environment, (library,))


def _read_arguments(context, library, descriptor, environment, call_helper):
    """Add int32 packed(void **arguments), which calls the kernel and returns its status: 0 unless it raised an exception."""
    module = context.create_module("packed")
    kernel = context.declare_function(module, descriptor)
    kind = ir.FunctionType(cgutils.int32_t, [cgutils.voidptr_t.as_pointer()])
    packed = ir.Function(module, kind, descriptor.llvm_cfunc_wrapper_name)
    builder = ir.IRBuilder(packed.append_basic_block())
    values = []
    for i, argument in enumerate(descriptor.argtypes):
        data = builder.load(cgutils.gep(builder, packed.args[0], i))
        stored = context.get_data_type(argument).as_pointer()
        values.append(context.unpack_value(builder, argument, builder.bitcast(data, stored)))
    status, _ = context.call_conv.call_function(builder, kernel, descriptor.restype, descriptor.argtypes, values, ("noinline",))
    builder.ret(status.code)
    library.add_ir_module(module)


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


def overload(kernel, args):
    """What Numba compiled of a kernel for arguments of these types: it is called here first, if it was not yet."""
    return kernel.overloads[types_of(kernel, args)]


def entry_point(compiled):
    """The address of machine code that takes arguments as Numba passes them."""
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def packed(compiled):
    """The address of a kernel's int32 packed(void **arguments): pointers to the arguments as Numba stores them."""
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


def absolute(context, builder, address):
    """An address as a value. Code with one is never written to disk, where it would be wrong in another process."""
    return context.add_dynamic_addr(builder, address, "nbnet")


def keep_with_code(context, thing):
    """Keep an object as long as the machine code that is being made."""
    library = context.active_code_library
    library.nbnet_keeps = [*getattr(library, "nbnet_keeps", ()), thing]


def compile_result(function_type, signature):
    """What Numba compiled for a signature of a jitted function, given as its type."""
    return function_type.dispatcher.get_compile_result(signature)
