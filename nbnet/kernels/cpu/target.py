"""The processor that Numba compiles for, which NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may choose: the one place that knows its registers.

LLVM's list of the host's features is not enough: it says nothing of a processor chosen by name, and may lack "neon" where every
processor has it. So LLVM compiles an addition, and the registers in the machine code are counted.
"""

import llvmlite.binding as llvm

from nbnet.kernels.cpu.numba_private import target_machine

_ADDITION = """
define <16 x i32> @add(<16 x i32> %a, <16 x i32> %b) {
  %sum = add <16 x i32> %a, %b
  ret <16 x i32> %sum
}
"""


def _width():
    """Bytes of a vector register: those of AVX-512 or AVX2, else 16. AVX alone lacks integers of 32 bytes."""
    machine = target_machine()
    module = llvm.parse_assembly(_ADDITION)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    assembly = machine.emit_assembly(module)
    return 64 if "zmm" in assembly else 32 if "ymm" in assembly else 16


ARCHITECTURE = target_machine().triple.split("-")[0].replace("arm64", "aarch64")  # "x86_64", "aarch64", ...
WIDTH = _width()
REGISTERS = 32 if WIDTH == 64 or ARCHITECTURE == "aarch64" else 16  # vector registers
