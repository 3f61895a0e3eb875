"""numba-cuda's names that are not public API: which of them the installed release lacks."""

import importlib

import pytest
from cuda_machine import INSTALLED, SIMULATED

pytestmark = pytest.mark.skipif(not INSTALLED, reason="there is no numba-cuda")
MODULES = {
    "numba.cuda.core.config": ["ENABLE_CUDASIM"],
    "numba.cuda.core.errors": ["NumbaPerformanceWarning"],
    "numba.cuda.dispatcher": ["CUDACache", "CUDADispatcher.enable_caching"],
    "numba.cuda.np.numpy_support": ["from_dtype"],
    "numba.cuda.serialize": ["dumps"],
}
IN_THE_SIMULATOR = {"numba.cuda.core.config": ["ENABLE_CUDASIM"], "numba.cuda.simulator.kernelapi": ["FakeCUDAShared.array"]}
CACHE = [
    "cache_path",
    "_cache_file.load",
    "_cache_file.save",
    "_impl.filename_base",
    "_impl.locator.get_source_stamp",
    "_index_key",
    "_py_func",
]


def look_up(thing, path, name):
    for part in path.split("."):
        thing = getattr(thing, part, None)
        if thing is None:
            pytest.fail(f"numba-cuda has no {name}.{path}: change nbnet/kernels/gpu/numba_private.py", pytrace=False)


@pytest.mark.parametrize("module", IN_THE_SIMULATOR if SIMULATED else MODULES)
def test_modules(module):
    for name in (IN_THE_SIMULATOR if SIMULATED else MODULES)[module]:
        look_up(importlib.import_module(module), name, module)


@pytest.mark.skipif(SIMULATED, reason="the simulator keeps nothing")
@pytest.mark.parametrize("path", CACHE)
def test_attributes_of_a_cache(path):
    from numba import cuda

    kernel = cuda.jit(cache=True)(lambda x: None)
    look_up(kernel, "_cache", "CUDADispatcher")
    look_up(kernel._cache, path, "CUDACache")


@pytest.mark.skipif(SIMULATED, reason="the simulator keeps nothing")
def test_kernels_and_generated_kernels_are_kept():
    from pathlib import Path

    from nbnet.functional.batchnorm_coefficients import about_mean
    from nbnet.kernels.array import cuda as array
    from nbnet.kernels.gpu.compile import KernelCache, channelwise

    generated = channelwise(about_mean, 1, (True,) * 4, False)
    assert isinstance(array._add._cache, KernelCache)
    assert isinstance(generated._cache, KernelCache)
    assert "values = formula(in0[c], in1[c], in2[c], in3[c])" in Path(generated.py_func.__code__.co_filename).read_text(encoding="utf-8")
