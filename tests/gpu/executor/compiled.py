"""Kernels as machine code of this processor, compiled once for all processes."""

import ctypes
import pickle
import re
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from . import checks, lowering, runtime
from .identity import identity

CTYPES = {
    "i64": ctypes.c_int64, "i32": ctypes.c_int32, "i16": ctypes.c_int16, "i8": ctypes.c_int8, "i1": ctypes.c_bool,
    "float": ctypes.c_float, "double": ctypes.c_double, "ptr": ctypes.c_void_p,
}  # fmt: skip
VARIABLE = re.compile(r'^@"?([\w.$]+)"? = (?:[a-z_]+ )*?(global|constant) (\[.*?\]|\{.*?\}|<.*?>|\w+) .*?, align (\d+)', re.MULTILINE)
SHARED_LIMIT = 48 << 10  # bytes of a block


@dataclass
class Variable:
    """A variable of a module: a shared array, or constants."""

    name: str
    shown: str
    shared: bool
    size: int
    alignment: int


@dataclass
class Code:
    """What is kept of a kernel: the object file, and what launches and messages need."""

    object: bytes
    kinds: list[str]  # of the arguments, in LLVM IR
    variables: list[Variable]
    places: list[checks.Place | None]


@cache
def _machine():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.load_library_permanently("libm.so.6")
    llvm.load_library_permanently(str(runtime.path()))
    features = llvm.get_host_cpu_features()
    for name in features:
        if name.startswith("avx512"):  # vectors of four need no more
            features[name] = False
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2, jit=True, codemodel="jitdefault")


def _optimize(module):
    """As NVIDIA's compiler would, so without vectors that the source does not ask for."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(_machine(), options)
    builder.getModulePassManager().run(module, builder)


def compile_kernel(dispatcher, signature):
    """The Code of a kernel for arguments of these types."""
    machine = _machine()
    module, entry = lowering.linked(dispatcher, signature)
    names = checks.shared_names(str(module))
    kernel = module.get_function(entry)
    kernel.add_function_attribute("noinline")
    kinds = [str(argument.type) for argument in kernel.arguments]
    module.link_in(llvm.parse_assembly(_unpacking(entry, kinds)))
    for function in module.functions:
        if not function.is_declaration and function.name != checks.ENTRY:
            function.linkage = "internal"
    _optimize(module)
    text, places = checks.checked(str(module))
    _refuse_unknown(text)
    variables = [
        Variable(name, names.get(name, name), "_smem_" in name, checks.size_of(kind), int(alignment))
        for name, _, kind, alignment in VARIABLE.findall(text)
        if name != "gpu_registers" and not name.startswith("_ZN08NumbaEnv")
    ]
    text = re.sub(r"^(@\S+ =) (?:internal|private)", r"\1", text, flags=re.MULTILINE)  # so that their addresses can be asked for
    return Code(machine.emit_object(llvm.parse_assembly(text)), kinds, variables, places)


def _unpacking(entry, kinds):
    """A function that takes addresses of the arguments and calls the kernel."""
    listed = ", ".join(f"{kind} %v{i}" for i, kind in enumerate(kinds))
    lines = [f'target triple = "{llvm.get_process_triple()}"', f'declare void @"{entry}"({", ".join(kinds)})']
    lines.append(f"define void @{checks.ENTRY}(ptr %a) {{")
    for i, kind in enumerate(kinds):
        lines += [f"  %p{i} = getelementptr ptr, ptr %a, i64 {i}", f"  %q{i} = load ptr, ptr %p{i}", f"  %v{i} = load {kind}, ptr %q{i}"]
    return "\n".join([*lines, f'  call void @"{entry}"({listed})', "  ret void", "}"])


def _refuse_unknown(text):
    """Refuse what the CPU cannot do, before it is called."""
    asm = re.search(r'asm (?:sideeffect )?"([^"]*)"', text)
    if asm:
        raise NotImplementedError(f"inline PTX {asm[1]!r} has no substitute: add one to PTX in tests/gpu/executor/substitutes.py")
    for name in re.findall(r'^declare [^@\n]*@"?([\w.$]+)', text, re.MULTILINE):
        if not name.startswith(("llvm.", "gpu_")) and re.search(rf'call [^@\n]*@"?{re.escape(name)}"?\(', text):
            raise NotImplementedError(f"{name!r} has no substitute: add one to tests/gpu/executor/substitutes.py")


class Loaded:
    """A kernel that can be launched."""

    def __init__(self, code):
        self.code = code
        module = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
        self._engine = llvm.create_mcjit_compiler(module, _machine())
        self._engine.add_object_file(llvm.object_file.ObjectFileRef.from_data(code.object))
        self._engine.finalize_object()
        self.entry = self._engine.get_function_address(checks.ENTRY)
        self.registers = self._engine.get_global_value_address("gpu_registers")
        self.memory = [runtime.Memory(each.size, self._engine.get_global_value_address(each.name)) for each in code.variables]
        total = sum(each.size for each in code.variables if each.shared)
        if total > SHARED_LIMIT:
            raise MemoryError(f"got {total} bytes of shared arrays, expected at most {SHARED_LIMIT}")


_loaded = {}


def load(dispatcher, signature):
    """A kernel, from this process, from the disk or from the compiler."""
    key = dispatcher, signature
    if key not in _loaded:
        path = runtime.FOLDER / f"{dispatcher.py_func.__name__}-{identity(dispatcher, signature)[:20]}.kernel"
        if not path.exists():
            runtime.keep(path, pickle.dumps(compile_kernel(dispatcher, signature)))
        code = pickle.loads(path.read_bytes())
        _loaded[key] = Loaded(code)
    return _loaded[key]
