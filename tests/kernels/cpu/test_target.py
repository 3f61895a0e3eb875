"""Processors other than this one: their registers, and that every kernel compiles for them and computes the same."""

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from nbnet.kernels import OPERATIONS, functions
from nbnet.kernels.activations import SMOOTH
from nbnet.kernels.cpu import target

from .compile_for import AFTER_NORM, kernels

HERE = Path(__file__).parent
# triple, name: architecture, bytes of a register, registers
PROCESSORS = {
    ("x86_64-unknown-linux-gnu", "x86-64-v2"): ("x86_64", 16, 16),
    ("x86_64-pc-windows-msvc", "nehalem"): ("x86_64", 16, 16),
    ("x86_64-unknown-linux-gnu", "sandybridge"): ("x86_64", 32, 16),
    ("x86_64-apple-darwin", "haswell"): ("x86_64", 32, 16),
    ("x86_64-unknown-linux-gnu", "skylake-avx512"): ("x86_64", 64, 32),
    ("aarch64-unknown-linux-gnu", "generic"): ("aarch64", 16, 32),
    ("aarch64-unknown-linux-gnu", "neoverse-v2"): ("aarch64", 16, 32),
    ("arm64-apple-darwin", "apple-m1"): ("aarch64", 16, 32),
}


@pytest.mark.parametrize(("triple", "name"), PROCESSORS)
def test_registers(triple, name):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name)
    assert target.describe(machine) == PROCESSORS[triple, name]


def run(command, tmp_path, **environment):
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | environment  # machine code on disk cannot be inspected
    result = subprocess.run([sys.executable, *command], env=env, cwd=HERE.parents[2], capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_every_kernel_is_listed():
    others = {f"batchnorm.{kernel}_{name}" for kernel in ("apply", "backward_reduce") for name in SMOOTH if name not in AFTER_NORM}
    assert kernels().keys() == {f"{operation}.{name}" for operation in OPERATIONS for name in functions(operation)} - others


ARM, OLD_X86 = ("aarch64-unknown-linux-gnu", "generic"), ("x86_64-unknown-linux-gnu", "x86-64-v2")


@pytest.mark.parametrize(("processor", "part"), [(ARM, "written"), (ARM, "made"), (OLD_X86, "written")])
def test_every_kernel_compiles(processor, part, tmp_path):
    """With instructions alone: a call of libm's fma for each number makes a convolution ten times slower than NumPy's. What is made from
    tables has the vector functions of those that are written."""
    found = run([HERE / "compile_for.py", *processor, part], tmp_path)
    assert found == [str(number) for number in PROCESSORS[processor]]


OLD = """
import numpy as np, nbnet as nb
from nbnet.kernels.activations import SMOOTH
from nbnet.kernels.cpu import target
rng = np.random.default_rng(0)
images, weight, bias = rng.normal(size=(4, 9, 9, 16)), rng.normal(size=(3, 3, 16, 16)), rng.normal(size=16)
rows = rng.normal(size=(70, 33)) * 40
def results(backend, dtype):
    x, w, b, r = (array.astype(np.float32).astype(dtype) for array in (images, weight, bias, rows))
    for stride in (1, 2):
        y, saved = nb.functional.conv2d_forward(x, w, b, stride=stride, backend=backend)
        yield from (y, *nb.functional.conv2d_backward(y / 30, saved))
    y, saved = nb.functional.batch_norm_forward(x, b, b, backend=backend)
    yield from (y, *nb.functional.batch_norm_backward(x[::-1], saved))
    for layer in (nb.Tanh(), nb.Sigmoid(), nb.Softmax()):
        layer.build((33,), backend=backend, dtype=dtype)
        yield layer.forward(r)[0]
assert (target.WIDTH, target.REGISTERS) == (16, 16)
from tolerances import assert_close
for serial, parallel, true in zip(results("serial", "float32"), results("parallel", "float32"), results("numpy", "float64")):
    assert serial.tobytes() == parallel.tobytes()
    assert_close(serial, true, "matmul")
"""


@pytest.mark.skipif(target.ARCHITECTURE != "x86_64", reason="is about x86-64 before AVX and FMA")
def test_a_processor_without_fma_computes_the_same(tmp_path):
    tests = f"{HERE.parents[1]}{os.pathsep}{HERE.parents[2]}"
    assert run(["-c", OLD], tmp_path, NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="", PYTHONPATH=tests) == []
