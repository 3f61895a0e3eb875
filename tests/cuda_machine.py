"""Where CUDA kernels run in this process, which `pytest --cuda=` chooses."""

import importlib.util
import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

MODES = {
    "device": "on a GPU, if there is one (the default)",
    "simulator": "as Python, in Numba's simulator: a quarter of the tests' cases",
    "simulator-complete": "all cases",
    "executor": "compiled for the CPU, with every access checked: a twelfth of the tests' cases",
    "executor-complete": "all cases",
}
EVERY = {"simulator": 4, "executor": 12}  # which cases of a test function run: the first one, and every so many after it
MANY, THIRD = "tests/gpu/test_operations.py", 3  # a file of tests/gpu with hundreds of cases, of which each third one runs
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
    """The tests that run in this mode: the cases of EVERY, and all of tests/gpu but for MANY."""
    seen: Counter = Counter()
    chosen = []
    for item in items:
        function = item.nodeid.partition("[")[0]
        every = EVERY.get(mode, 1)
        if function.startswith("tests/gpu/"):
            every = min(every, THIRD) if function.startswith(MANY) else 1
        if seen[function] % every == 0:
            chosen.append(item)
        seen[function] += 1
    return chosen


def another_order() -> AbstractContextManager:
    """In the executor, threads run in another order within this block."""
    if not EXECUTED:
        return nullcontext()
    from gpu.executor import driver

    return driver.order(driver.RANDOM)
