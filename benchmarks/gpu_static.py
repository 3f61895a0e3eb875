"""What the compiler and the launches tell of each CUDA kernel without a GPU: `python benchmarks/gpu.py --static`.

Nothing here is measured. Registers and spills are those of the assembler for compute capability 9.0. Bytes are those of the arrays of a
launch, as if each were moved once; the time is what they would take at the bandwidth of an H100 (SXM).
"""

from __future__ import annotations

import importlib
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gpu_cases import cases
from numba import cuda
from numba.cuda import dispatcher, types

from nbnet.kernels import OPERATIONS
from nbnet.kernels.gpu import device, launch
from nbnet.kernels.gpu.numba_private import types_of
from nbnet.runtime import backend as backends

CAPABILITY = (9, 0)
MULTIPROCESSORS, BANDWIDTH = 132, 3.35e12  # bytes a second
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 227 << 10, 2048, 32  # of a multiprocessor
HEADER = f"{'kernel':28}{'grid':>16}{'block':>10}{'registers':>10}{'spills':>7}{'shared':>8}{'occupancy':>10}{'MB':>9}{'us if once':>12}"


class Launched(NamedTuple):
    kernel: Any
    signature: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    bytes: int


class Pool:
    def empty(self, shape: Any, dtype: Any) -> Any:
        return device.DeviceArray(None, tuple(map(int, shape)), np.dtype(dtype), None)


class _Device:
    compute_capability = CAPABILITY


def record() -> list[Launched]:
    """Let launches be noted instead of made, on arrays without memory. For the rest of this process."""
    found: list[Launched] = []

    def noted(kernel: Any, grid: Any, block: Any, *args: Any) -> None:
        arrays = [arg for arg in args if isinstance(arg, device.DeviceArray)]
        grid, block = (each if isinstance(each, tuple) else (each,) for each in (grid, block))
        found.append(Launched(kernel, types.void(*types_of(args)), grid, block, sum(array.nbytes for array in arrays)))

    run, pool = launch.run, Pool()
    for operation in OPERATIONS:
        importlib.import_module(f"nbnet.kernels.{operation}.cuda")
    for name, module in list(sys.modules.items()):
        if name.startswith("nbnet.kernels.") and getattr(module, "run", None) is run:
            module.run = noted  # type: ignore[attr-defined]
    dispatcher.get_current_device = lambda: _Device
    device.pool = lambda: pool  # type: ignore[assignment]
    device.to_device = lambda array: pool.empty(array.shape, array.dtype)
    device.to_host_all = lambda arrays: [np.zeros(array.shape, array.dtype) for array in arrays]
    device.DeviceArray.__setitem__ = lambda self, where, value: None  # type: ignore[method-assign]
    backends.check_cuda = lambda: "no GPU"
    return found


def assembler() -> Path:
    import nvidia

    found = next((path for root in nvidia.__path__ for path in Path(root).rglob("ptxas")), None)
    if found is None:
        raise SystemExit("found no ptxas, which has the registers of kernels: pip install nvidia-cuda-nvcc-cu12")
    return found


def resources(kernel: Any, signature: Any) -> tuple[int, int, int]:
    """Registers of a thread, bytes that it spills, and bytes of shared memory of a block."""
    bounds = kernel.targetoptions.get("launch_bounds")
    options = {"launch_bounds": bounds} if bounds else {}
    ptx = cuda.compile(kernel.py_func, signature, device=False, abi="numba", cc=CAPABILITY, output="ptx", **options)[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8")
        command = [assembler(), "-v", "-arch=sm_90", source, "-o", Path(folder, "out")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    shared = re.search(r"(\d+) bytes smem", said)
    registers = re.search(r"Used (\d+) registers", said)
    assert registers is not None, said
    return int(registers[1]), sum(map(int, re.findall(r"(\d+) bytes spill", said))), int(shared[1]) if shared else 0


def occupancy(threads: int, registers: int, shared: int) -> float:
    """Resident threads of a multiprocessor, of those that it can have at most. Registers are given to warps, 256 at a time."""
    warps = -(-threads // 32)
    blocks = min(BLOCKS, THREADS // (32 * warps), REGISTERS // (warps * -(-registers * 32 // 256) * 256), SHARED // (shared + 1024))
    return 32 * warps * blocks / THREADS


def report(only: str) -> None:
    """Print a line for each kernel that each case launches."""
    found, known = record(), dict[Any, tuple[int, int, int]]()
    print(f"nothing below ran on a GPU; occupancy and times are of an H100's data sheet\n{HEADER}")
    for case in cases(False):
        if only not in case.name:
            continue
        arrays = [device.to_device(array) for array in case.make(np.random.default_rng(1))]
        found.clear()
        case.run(*arrays)
        print(case.name)
        for one in found:
            key = one.kernel, str(one.signature)
            known[key] = known.get(key) or resources(one.kernel, one.signature)
            registers, spills, shared = known[key]
            grid, block = ("x".join(map(str, each)) for each in (one.grid, one.block))
            print(
                f"  {one.kernel.py_func.__name__:26}{grid:>16}{block:>10}{registers:>10}{spills:>7}{shared:>8}"
                f"{occupancy(math.prod(one.block), registers, shared):>10.0%}{one.bytes / 1e6:>9.1f}{1e6 * one.bytes / BANDWIDTH:>12.1f}"
            )
