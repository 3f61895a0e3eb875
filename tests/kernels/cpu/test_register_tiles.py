"""Register tiles use full-width FMA, and their accumulators stay in registers."""

import re

import numpy as np
import pytest
from numba import njit, types
from numba.core.ccallback import CFunc

from nbnet.kernels.cpu import gemm as products
from nbnet.kernels.cpu import register_tiles as simd
from nbnet.kernels.cpu.compile import C_OPTIONS

REGISTER = {64: "zmm", 32: "ymm"}

pytestmark = pytest.mark.skipif(simd.WIDTH not in REGISTER, reason="the assembly of x86-64 with AVX2 or AVX-512 is inspected")


def inner_loops(assembly):
    """Basic blocks that jump to themselves and hold FMA instructions: lists of lines."""
    blocks = re.split(r"^(\.LBB\w+):", assembly, flags=re.MULTILINE)
    for label, text in zip(blocks[1::2], blocks[2::2]):
        lines = [line.strip() for line in text.splitlines()]
        end = next((i for i, line in enumerate(lines) if re.match(rf"j\w+\s+{re.escape(label)}$", line)), None)
        if end is not None and any(line.startswith("vfmadd") for line in lines[:end]):
            yield lines[: end + 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles_are_full_width_and_do_not_spill(dtype):
    signature = products._signature(getattr(types, dtype))
    function = products._define(getattr(types, dtype)).__wrapped__
    compiled = CFunc(function, (signature.args, signature.return_type), {}, C_OPTIONS)
    compiled.compile()  # not from the cache, whose machine code cannot be inspected
    assembly = compiled._library.get_asm_str()
    loops = list(inner_loops(assembly))
    for masked in (False, True):
        accumulators = {rows * vectors for vectors in {1, 2, simd.MAX_VECTORS} for rows in simd.tile_rows(vectors, masked)}
        of_kind = [loop for loop in loops if masked == any("{%k" in line or "vmaskmov" in line for line in loop)]
        assert {sum(line.startswith("vfmadd") for line in loop) for loop in of_kind} == accumulators  # one step of the sum: not unrolled
    for loop in loops:
        for line in loop:
            if line.startswith("vfmadd"):
                assert f"%{REGISTER[simd.WIDTH]}" in line, line
            assert not re.search(r"v?mov\w*\s.*%[xyz]mm\d+.*\(%rsp\)|v?mov\w*\s.*\(%rsp\).*%[xyz]mm", line), f"a spill: {line}"


def test_the_width_is_the_hosts():
    assert simd.WIDTH in (16, 32, 64)
    assert njit(lambda array: simd.lanes(array))(np.zeros(1, np.float32)) * 4 == simd.WIDTH
    assert simd.MAX_VECTORS in (2, 4)
