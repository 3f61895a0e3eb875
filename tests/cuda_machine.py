"""Where CUDA kernels run in this process, which `pytest --cuda=` chooses."""

import importlib.util
import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

MODES = {
    "device": "on a GPU, if there is one (the default)",
    "simulator": "as Python, in Numba's simulator: half of the tests' cases",
    "simulator-complete": "all cases",
    "executor": "compiled for the CPU, with every access checked: an eighth of the tests' cases",
    "executor-complete": "all cases",
}
EVERY = {"simulator": 2, "executor": 8}  # which cases of a test function run: the first one, and every so many after it
INSTALLED = importlib.util.find_spec("numba_cuda") is not None
SIMULATED = EXECUTED = GPU = False  # GPU: compiled kernels run, in the executor too


def choose(mode: str) -> None:
    """Set these names, before Numba is imported."""
    global SIMULATED, EXECUTED, GPU
    SIMULATED, EXECUTED = mode.startswith("simulator"), mode.startswith("executor") and lacking(mode) is None
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
    if mode.startswith("simulator"):
        return None
    from gpu.executor import runtime

    return runtime.missing()


def sampled(items: list, mode: str) -> list:
    """The tests that run in this mode: the cases of EVERY, and all of tests/gpu."""
    seen: Counter = Counter()
    chosen = []
    for item in items:
        function = item.nodeid.partition("[")[0]
        if seen[function] % EVERY.get(mode, 1) == 0 or function.startswith("tests/gpu/"):
            chosen.append(item)
        seen[function] += 1
    return chosen


def another_order() -> AbstractContextManager:
    """In the executor, threads run in another order within this block."""
    if not EXECUTED:
        return nullcontext()
    from gpu.executor import driver

    return driver.order(driver.RANDOM)
