"""The processor that Numba compiles for, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may choose: the one place that knows its registers.

LLVM's list of the host's features would not do. It does not describe a processor that was chosen by name, and it may lack "neon" on
aarch64, where every processor has it. So LLVM compiles an addition, and the machine code shows which registers there are.
"""

import llvmlite.binding as llvm

from nbnet.kernels.cpu.numba_private import target_machine

_ADDITION = """
define <16 x float> @add(<16 x float> %a, <16 x float> %b) {
  %sum = fadd <16 x float> %a, %b
  ret <16 x float> %sum
}
"""


def describe(machine):
    """The architecture, the bytes of a vector register (64 with AVX-512, 32 with AVX, else 16) and the number of vector registers."""
    architecture = machine.triple.split("-")[0].replace("arm64", "aarch64")
    module = llvm.parse_assembly(_ADDITION)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    assembly = machine.emit_assembly(module)
    width = 64 if "zmm" in assembly else 32 if "ymm" in assembly else 16
    return architecture, width, 32 if width == 64 or architecture == "aarch64" else 16


ARCHITECTURE, WIDTH, REGISTERS = describe(target_machine())
