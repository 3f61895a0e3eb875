"""Numba's names that are not public API: which of them the installed release lacks."""

import importlib

import numba
import pytest
from numba import njit

MODULES = {
    "llvmlite.binding.ffi": ["lib._lock.__enter__"],
    "numba._dynfunc": ["make_function"],
    "numba.core.caching": ["FunctionCache"],
    "numba.core.ccallback": ["CFunc"],
    "numba.core.codegen": [
        "JITCodeLibrary._optimize_final_module",
        "JITCodeLibrary._finalize_final_module",
        "JITCodeLibrary._finalize_dynamic_globals",
        "JITCodeLibrary._verify_declare_only_symbols",
    ],
    "numba.core.compiler": ["Compiler.compile_extra"],
    "numba.core.compiler_lock": ["global_compiler_lock"],
    "numba.core.registry": ["cpu_target.target_context.codegen"],
    "numba.core.serialize": ["dumps"],
    "numba.np.arrayobj": ["populate_array"],
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


def test_the_address_of_machine_code(kernel):
    from nbnet.kernels.cpu import numba_private

    (compiled,) = kernel.overloads.values()
    look_up(compiled, "library.get_pointer_to_function", "CompileResult")
    look_up(compiled, "fndesc.llvm_func_name", "CompileResult")
    if numba_private.entry_point(compiled) < 1 << 12 or numba_private.overload(kernel, (1.5,)) is not compiled:
        lacking("CodeLibrary.get_pointer_to_function as it was")


def test_the_function_that_reads_arguments(kernel):
    """What tests/kernels/cpu/test_packed.py relies on."""
    for path in ("get_data_type", "unpack_value", "call_conv.call_function", "create_module", "declare_function", "create_cfunc_wrapper"):
        look_up(kernel.targetctx, path, "CPUContext")
    (compiled,) = kernel.overloads.values()
    look_up(compiled, "fndesc.llvm_cfunc_wrapper_name", "CompileResult")


def test_addresses_in_machine_code():
    """See also tests/test_inference.py: such code is not cached, and keeps the objects that it uses."""
    from numba import types
    from numba.extending import intrinsic

    from nbnet.kernels.cpu import numba_private

    @intrinsic
    def address(context):
        def generate(context, builder, signature, args):
            look_up(context, "active_code_library", "CPUContext")
            look_up(context, "call_conv.get_function_type", "CPUContext")
            numba_private.keep_with_code(context, "kept")
            return builder.ptrtoint(numba_private.absolute(context, builder, 1 << 20), context.get_value_type(types.intp))

        return types.intp(), generate

    caller = njit(lambda: address())
    if caller() != 1 << 20:
        lacking("CPUContext.add_dynamic_addr as it was")
    (compiled,) = caller.overloads.values()
    if not look_up(compiled, "library.has_dynamic_globals", "CompileResult") or compiled.library.nbnet_keeps != ["kept"]:
        lacking("CodeLibrary.has_dynamic_globals as it was")


def test_code_of_a_body_is_in_its_kernels_only():
    from nbnet.kernels.cpu import compile as compiling
    from nbnet.kernels.cpu import numba_private

    body = compiling.body(double)
    kernel = njit(pipeline_class=numba_private.KernelCompiler)(lambda x: body(x) + 1)
    assert kernel(1.5) == 4
    assert numba_private.entry_point(*kernel.overloads.values())
    (compiled,) = body.overloads.values()
    assert numba_private.entry_point(compiled) == 0
    assert " mul " not in compiled.library.get_llvm_str()
    assert "fmul" in compiled.library.get_llvm_str()
    with pytest.raises(TypeError, match="bad argument type for built-in operation"):
        body(1.5)
    assert kernel(2.5) == 6


@pytest.mark.parametrize("collects", [True, False])
def test_no_garbage_is_collected_while_a_kernel_is_compiled(collects):
    import gc

    from numba import types
    from numba.extending import intrinsic

    from nbnet.kernels.cpu import numba_private

    seen = []

    @intrinsic
    def look(context, x):
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise KeyError("a fault")

        def generate(context, builder, signature, args):
            seen.append(gc.isenabled())
            return context.get_dummy_value()

        return types.void(x), generate

    try:
        if not collects:
            gc.disable()
        kernel = njit(pipeline_class=numba_private.KernelCompiler)(lambda x: look(x))
        kernel(1)
        assert seen == [False, False]
        assert gc.isenabled() == collects
        with pytest.raises(Exception, match="a fault"):
            kernel(1.5)
        assert (seen, gc.isenabled()) == ([False] * 3, collects)
    finally:
        gc.enable()


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
