"""Test settings that must be in place before Numba is imported."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two processes of tests share the cores: waiting threads sleep
# A cache for each process: two that save at once could mix up their files.
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".numba_cache" / os.environ.get("PYTEST_XDIST_WORKER", "gw0"))


def pytest_configure(config):
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        # Threads of the simulator compute with NumPy's scalars, which warn where a GPU gives infinity or NaN.
        config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning")
        # A thread that waits for the others polls: it should not keep Python for long.
        sys.setswitchinterval(1e-4)


@pytest.fixture
def rng():
    """A random generator that is the same in every run of a test."""
    import numpy as np

    return np.random.Generator(np.random.Philox(20261121))


@pytest.fixture(autouse=True, scope="session")
def no_workers():
    """Two processes of tests keep two processors busy: no others to compile ahead for them."""
    from nbnet import ahead

    ahead.WORKERS = 0
