"""Parallel loops compute in the caller's floating-point mode, whichever thread runs a chunk."""

import numpy as np
import pytest
from numba import config, njit

from nbnet.kernels.cpu.atomics import add, load, pause
from nbnet.kernels.cpu.compile import body
from nbnet.kernels.cpu.floating_point import mode, set_mode
from nbnet.kernels.cpu.parallel_for import parallel_for
from nbnet.kernels.cpu.target import ARCHITECTURE

MODES = {
    "x86_64": {"subnormal numbers are zero": 0x8040, "rounds up": 0x4000},
    "aarch64": {"subnormal numbers are zero": 1 << 24, "rounds up": 1 << 22},
}.get(ARCHITECTURE, {})

pytestmark = [
    pytest.mark.skipif(not MODES, reason="nbnet does not know this processor's mode"),
    pytest.mark.skipif(config.NUMBA_NUM_THREADS < 2, reason="there is only one thread"),
]


@njit
def _mode():
    return mode()


@njit
def _set_mode(wanted):
    set_mode(wanted)


@pytest.fixture
def in_mode():
    """Change the mode of this thread until the test ends."""
    before = _mode()
    yield _set_mode
    _set_mode(before)


@body
def _multiply(k, x, y, arrived):
    """Each of two chunks first waits for the other one, so two threads run them."""
    add(arrived.ctypes.data, 1)
    for _ in range(10**9):
        if load(arrived.ctypes.data) == 2:
            break
        pause()
    for i in range(x.size - 1):
        y[k, i] = x[i] * x[i + 1]


@njit(nogil=True)
def _on_two_threads(x, arrived):
    y = np.zeros((2, x.size - 1))
    parallel_for(2, _multiply, (x, y, arrived))
    return y


@njit(nogil=True)
def _alone(x):
    y = np.zeros(x.size - 1)
    for i in range(y.size):
        y[i] = x[i] * x[i + 1]
    return y


@pytest.mark.parametrize("name", MODES)
def test_all_chunks_run_in_the_callers_mode(name, in_mode):
    x = np.concatenate([np.tile([1.5, 2.0**-1040], 33), np.linspace(1.1, 1.9, 65)])  # products are subnormal, then inexact
    usual = _alone(x)
    for wanted in (0, MODES[name], 0, MODES[name]):
        in_mode(wanted)
        here, everywhere, after = _alone(x), _on_two_threads(x, np.zeros(1, np.intp)), _mode()
        in_mode(0)
        assert after == wanted
        assert (here.tobytes() == usual.tobytes()) == (wanted == 0)
        assert [line.tobytes() for line in everywhere] == 2 * [here.tobytes()]
