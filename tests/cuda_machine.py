"""Where CUDA kernels run in this process, which `pytest --cuda=` chooses: on a GPU if there is one, in Numba's simulator, or in the executor."""

import importlib.util
import os

MODES = {
    "device": "on a GPU, if there is one (the default)",
    "simulator": "as Python, in Numba's simulator",
    "executor": "compiled for the CPU, with every access checked",
}
INSTALLED = importlib.util.find_spec("numba_cuda") is not None
SIMULATED = EXECUTED = GPU = False  # GPU: compiled kernels run, in the executor too


def choose(mode: str) -> None:
    """Set these names, before Numba is imported."""
    global SIMULATED, EXECUTED, GPU
    SIMULATED, EXECUTED = mode == "simulator", mode == "executor" and lacking(mode) is None
    os.environ["NUMBA_ENABLE_CUDASIM"] = str(int(SIMULATED))
    if EXECUTED:
        from gpu.executor import driver

        driver.install()
    if not SIMULATED and INSTALLED:
        from numba import cuda

        GPU = bool(cuda.is_available())


def lacking(mode: str) -> str | None:
    """Why CUDA kernels cannot run in this mode; None if they can, or if the mode is not to be insisted on."""
    if mode == "device":
        return None
    if not INSTALLED:
        return "there is no numba-cuda, which has the simulator and the compiler (nor wheels of it for macOS)"
    if mode == "simulator":
        return None
    from gpu.executor import runtime

    return runtime.missing()
