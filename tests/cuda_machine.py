"""Where CUDA kernels can run in this process: in the simulator, on a GPU, or not at all."""

import importlib.util
import os

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
INSTALLED = importlib.util.find_spec("numba_cuda") is not None


def _gpu() -> bool:
    if SIMULATED or not INSTALLED:
        return False
    from numba import cuda

    return bool(cuda.is_available())


GPU = _gpu()
