"""Test settings that must be in place before Numba is imported."""

import os
import sys
from pathlib import Path

import cuda_machine
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two processes of tests share the cores: waiting threads sleep
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".numba_cache")


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the files in tests/described/ instead of comparing with them")
    where = "; ".join(f"{mode}: {what}" for mode, what in cuda_machine.MODES.items())
    parser.addoption("--cuda", choices=list(cuda_machine.MODES), default="device", help=f"where CUDA kernels run. {where}")


def pytest_ignore_collect(collection_path, config):
    """What is about the CPU alone, or about what numba-cuda makes for a GPU, is the same in each mode."""
    mode, kernels = config.getoption("--cuda"), Path(__file__).parent / "kernels"
    elsewhere = {"simulator": ["cpu"], "executor": ["cpu", "gpu/test_ptx.py", "gpu/test_numba_private.py"]}.get(mode.partition("-")[0], [])
    return True if collection_path in [kernels / name for name in elsewhere] else None


def pytest_make_parametrize_id(val, argname):
    """Name bytes by their argument: a gzip header has the time, and two processes of tests must collect the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config, items):
    mode = config.getoption("--cuda")
    lacking = cuda_machine.lacking(mode)
    items[:] = cuda_machine.sampled(items, mode)
    if lacking:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=lacking))


def pytest_configure(config):
    cuda_machine.choose(config.getoption("--cuda"))
    if cuda_machine.SIMULATED and cuda_machine.INSTALLED:
        # Threads of the simulator compute with NumPy's scalars, which warn where a GPU gives infinity or NaN.
        config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning")
        # A thread that waits for the others polls: it should not keep Python for long.
        sys.setswitchinterval(1e-4)
        _make_shared_arrays_safe()


def _make_shared_arrays_safe():
    """Give the threads of a simulated block one shared array per line. The simulator looks for it and then makes it, so two threads
    that are switched in between get one each."""
    import numpy as np
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def array(self, shape, dtype, alignment=None):
        caller = sys._getframe(1)
        return self._allocations.setdefault((caller.f_code, caller.f_lineno), np.empty(shape, dtype))

    FakeCUDAShared.array = array


@pytest.fixture
def rng():
    """A random generator that is the same in every run of a test."""
    import numpy as np

    return np.random.Generator(np.random.Philox(20261121))


@pytest.fixture(autouse=True, scope="session")
def no_workers():
    """Two processes of tests keep two processors busy: no others to compile ahead for them."""
    from nbnet.runtime import compile_ahead

    compile_ahead.WORKERS = 0
