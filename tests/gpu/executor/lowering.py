"""A kernel of numba-cuda as LLVM IR for this processor: Numba's own types and lowering, NVIDIA's libdevice, and the substitutes."""

import re
from functools import cache

import llvmlite.binding as llvm
import llvmlite.ir.types
from numba.cuda import types
from numba.cuda.compiler import compile_cuda, kernel_fixup
from numba.cuda.cudadrv import nvvm

from . import substitutes

CAPABILITY = (9, 0)
REFLECTED = {"__CUDA_FTZ": 0, "__CUDA_PREC_SQRT": 1, "__CUDA_PREC_DIV": 1, "__CUDA_ARCH": 100 * CAPABILITY[0] + 10 * CAPABILITY[1]}


def linked(dispatcher, signature):
    """A module with all that a kernel calls, not optimised, and the name of the kernel in it."""
    code = compile_cuda(dispatcher.py_func, types.void, signature, cc=CAPABILITY, lineinfo=True, nvvm_options={"opt": 3})
    kernel_fixup(code.library.get_function(code.fndesc.llvm_func_name), False)
    texts = [_for_host(text) for text in _texts(code.library)]
    module = llvm.parse_assembly(texts[0])
    needed = set(re.findall(r"@\"?(__nv_\w+)", "".join(texts)))
    texts += [of_libdevice(needed)] if needed else []
    for text in (*texts[1:], substitutes.definitions()):
        module.link_in(llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"\n{text}'))
    return module, code.fndesc.llvm_func_name


def _texts(library):
    """The IR of a library's modules. LLVM reads no pointers that name what they point to, which NVIDIA's compiler still wants."""
    typed, llvmlite.ir.types.ir_layer_typed_pointers_enabled = llvmlite.ir.types.ir_layer_typed_pointers_enabled, False
    try:
        return [str(module) for module in library.modules]
    finally:
        llvmlite.ir.types.ir_layer_typed_pointers_enabled = typed


def _for_host(text):
    """Without what only a GPU has. As NVIDIA's compiler does unasked, products and sums may be one operation."""
    text = re.sub(r"^(target |!nvvm|@\"?llvm\.used).*\n", "", text, flags=re.MULTILINE)
    text = text.replace("define linkonce_odr", "define weak_odr")  # the linker drops the others if nothing has called them yet
    text = re.sub(r" ?addrspace\(\d+\)", "", text).replace("addrspacecast", "bitcast")
    text = re.sub(r"(@\"_cudapy_smem_\d+\" =) +global (\[.*?\]) undef", r"\1 global \2 zeroinitializer", text)
    text = re.sub(r" = (fmul|fadd|fsub) (?=float|double)", r" = \1 contract ", text)
    text = substitutes.renamed(text)
    return text + "".join(substitutes.declarations(text))


@cache
def _libdevice():
    """Functions and global variables of libdevice: {name: IR}, and its attributes and types."""
    text = str(llvm.parse_bitcode(nvvm.LibDevice().get()))
    strings = dict(re.findall(r'^@([\w.]+) = .* c"(\w+)\\00"', text, re.MULTILINE))
    text = re.sub(r"call i32 @__nvvm_reflect\(ptr @([\w.]+)\)", lambda found: f"add i32 {REFLECTED[strings[found[1]]]}, 0", text)
    text = re.sub(r"(= add i32 \d+, 0) #\d+", r"\1", _for_host(text))
    pieces = re.findall(r"^(?:define .*?^\}|declare .*?|@[\w.]+ = .*?|(?:attributes |%).*?|!.*?)$", text, re.MULTILINE | re.DOTALL)
    named, rest = {}, []
    for piece in pieces:
        name = re.match(r'(?:define|declare)[^@]*@"?([\w.]+)|@([\w.]+) =', piece)
        if name:
            named[name[1] or name[2]] = piece.replace("define ", "define weak_odr ", 1) if "define internal" not in piece else piece
        else:
            rest.append(piece)
    return named, rest


def of_libdevice(names):
    """The IR of these functions of libdevice and of all that they use."""
    named, rest = _libdevice()
    found, open_ = {}, set(names)
    while open_:
        name = open_.pop()
        found[name] = named[name]
        open_ |= {other for other in re.findall(r'@"?([\w.]+)', named[name]) if other in named} - found.keys()
    return "\n".join([*rest, *found.values()])
