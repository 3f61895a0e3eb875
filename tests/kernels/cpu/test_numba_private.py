"""Numba's names that are not public API: which of them the installed release lacks."""

import importlib

import numba
import pytest
from numba import njit

MODULES = {
    "llvmlite.binding.ffi": ["lib._lock.__enter__"],
    "numba.core.caching": ["FunctionCache"],
    "numba.core.ccallback": ["CFunc"],
    "numba.core.compiler_lock": ["global_compiler_lock"],
    "numba.core.registry": ["cpu_target.target_context.codegen"],
    "numba.core.serialize": ["dumps"],
    "numba.np.ufunc.parallel": ["_launch_threads"],
}
KERNEL = ["_cache", "overloads", "targetctx.codegen", "typeof_pyval", "get_compile_result", "stats.cache_hits", "py_func"]
CACHE = ["cache_path", "_cache_file.load", "_cache_file.save", "_impl.filename_base", "_impl.locator.get_source_stamp", "_index_key"]


def lacking(name):
    return pytest.fail(f"Numba {numba.__version__} has no {name}: change nbnet/kernels/cpu/numba_private.py", pytrace=False)


def look_up(thing, path, name):
    for part in path.split("."):
        thing = getattr(thing, part, None)
        if thing is None:
            lacking(f"{name}.{path}")
    return thing


def double(x):
    return 2 * x


@pytest.fixture(scope="module")
def kernel():
    kernel = njit(cache=True)(double)
    kernel(1.5)
    return kernel


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in MODULES.items() for name in names])
def test_modules(module, name):
    try:
        look_up(importlib.import_module(module), name, module)
    except ImportError:
        lacking(module)


@pytest.mark.parametrize("path", KERNEL)
def test_attributes_of_a_kernel(kernel, path):
    look_up(kernel, path, "Dispatcher")


@pytest.mark.parametrize("path", CACHE)
def test_attributes_of_a_cache(kernel, path):
    look_up(kernel._cache, path, "FunctionCache")


def test_machine_code_of_a_signature(kernel):
    (compiled,) = kernel.overloads.values()
    if compiled is not kernel.get_compile_result(kernel.nopython_signatures[0]):
        lacking("Dispatcher.get_compile_result as it was")
    if look_up(compiled, "entry_point", "CompileResult")(1.5) != 3:
        lacking("CompileResult.entry_point as it was")


def test_the_target_machine():
    from numba.core.registry import cpu_target

    look_up(cpu_target.target_context.codegen(), "_tm.triple", "CPUCodegen")


def test_a_c_function(tmp_path):
    import llvmlite.binding as llvm
    from numba import types
    from numba.core.ccallback import CFunc
    from numba.np.ufunc.parallel import _launch_threads

    from nbnet.kernels.cpu import numba_private

    function = CFunc(double, ((types.float64,), types.float64), {}, {})
    look_up(function, "_cache", "CFunc")
    function.compile()
    if function.ctypes(1.5) != 3 or not function.address:
        lacking("CFunc.compile as it was")
    _launch_threads()
    if not llvm.address_of_symbol(numba_private.GET_NUM_THREADS):
        lacking(f"C function {numba_private.GET_NUM_THREADS}")
