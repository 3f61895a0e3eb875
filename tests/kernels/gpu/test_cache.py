"""Machine code of CUDA kernels on disk: a second process loads what the first one compiled. No GPU is needed: the linker makes the code."""

import os
import subprocess
import sys

import pytest
from cuda_machine import INSTALLED, SIMULATED

pytestmark = pytest.mark.skipif(SIMULATED or not INSTALLED, reason="machine code is made by numba-cuda, and not in the simulator")

PROCESS = """
from numba.cuda import dispatcher, types
from numba.cuda.cudadrv import devices

class Context:
    compute_capability = (9, 0)
    device = None

Context.device = Context
devices.get_context = dispatcher.get_current_device = lambda *which: Context
dispatcher._Kernel.bind = lambda kernel: kernel._codelibrary.get_cubin((9, 0))

import numpy as np
from nbnet.functional.batchnorm_coefficients import about_mean, affine_of
from nbnet.kernels.array import cuda as array
from nbnet.kernels.gpu import products, tiles
from nbnet.kernels.gpu.compile import channelwise
from nbnet.kernels.optimizer import cuda as optimizer

whole, number, truth, narrow = types.int64, types.float32, types.boolean, types.Array(types.float32, 1, "C")
wide = types.Array(types.float64, 1, "C")
two, four = types.UniTuple(whole, 2), types.UniTuple(whole, 4)
geometry = four, two, two, two, two, two, four, whole, whole, whole
convolution = narrow, narrow, narrow, truth, number, *geometry, narrow, truth, wide
sgd = optimizer.sgd.__globals__["_sgd"]
affine = affine_of(np.float32)
KERNELS = [
    *[(products._convolution(tile, True), convolution) for tile in tiles.TILES[4][:2]],
    (array._add, (narrow, narrow, whole, narrow)),
    (sgd, (narrow, narrow, narrow, whole, types.Array(types.int32, 1, "C"), narrow)),
    (channelwise(about_mean, 1, (True,) * 4, False), (whole, *[narrow] * 5)),
    (channelwise(affine, 5, (True, True, False, True, True, False), True),
     (whole, *[narrow] * 5, wide, wide, types.float64, narrow, narrow, types.float64)),
]
for kernel, signature in KERNELS:
    kernel.compile(signature)
    print(kernel.py_func.__name__, "loaded" if kernel._cache_hits else "compiled")
"""


def in_a_process(folder):
    """Lines (kernel, how it came to be), and the files that are then in the folder."""
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder), "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run([sys.executable, "-c", PROCESS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()], sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    """Also kernels with device functions in their cells, and those of generated source; tiles do not share their code."""
    first, files = in_a_process(tmp_path)
    assert [how for _, how in first] == ["compiled"] * 6
    second, later = in_a_process(tmp_path)
    assert [name for name, how in second if how == "compiled"] == []
    assert later == files
