"""Runs compiled CUDA kernels on the CPU, for tests: `pytest --cuda=executor`.

Numba's simulator runs a kernel's Python; this runs what its compiler made of it. Types, rounding, 128-bit accesses, barriers, shuffles and
atomics are those of the compiled kernel, and each access to memory is checked.

    lowering        a kernel as LLVM IR for this processor      <- numba-cuda, libdevice
    substitutes     what instructions of a GPU become there
    checks          calls before each access, and source lines
    compiled        machine code, kept on disk                  <- identity
    runtime(.c)     threads as coroutines, memory with a shadow
    driver          numba.cuda's arrays and launches
    faults          messages
"""
