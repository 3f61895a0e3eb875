"""Arithmetic on C numbers: the compiled loop and the NumPy definition give the same bits."""

import numpy as np
import pytest

from nbnet.kernels.channelwise import LARGEST
from nbnet.runtime.backend import get_backend


def mixed(a, b, c):
    return a * b + c, (np.float64(a) * a) ** 0.5 - b, a


def shifted(a, c):
    return (a + c,)


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    return rng.normal(size=17).astype(np.float32), rng.normal(size=17)


@pytest.mark.parametrize("name", ["serial", "parallel"])
def test_the_same_bits_as_numpy(name, numbers):
    a, b = numbers
    for arguments in ((a, b, 3.0), (a, 2.0, b), (b, a, b)):
        found, expected = ([np.zeros(17), np.zeros(17, np.float32), np.zeros(17)] for _ in range(2))
        get_backend(name).channelwise(mixed, found, *arguments)
        get_backend("numpy").channelwise(mixed, expected, *arguments)
        for x, y in zip(found, expected):
            assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("name", ["numpy", "serial", "parallel"])
def test_an_output_may_be_an_argument(name, numbers):
    _, b = numbers
    x = b.copy()
    get_backend(name).channelwise(shifted, (x,), x, 2.0)
    assert np.array_equal(x, b + 2)


@pytest.mark.parametrize("name", ["numpy", "serial", "parallel"])
def test_clamping_is_of_float32_alone(name):
    huge = np.array([1e300, -1e300, np.inf, np.nan, 1.0])
    narrow, wide = np.zeros(5, np.float32), np.zeros(5)
    for output in (narrow, wide):
        with np.errstate(all="ignore"):
            get_backend(name).channelwise(shifted, (output,), huge, 0.0, clamp=True)
    assert narrow[:3].tolist() == [LARGEST, -LARGEST, LARGEST]
    assert np.isnan(narrow[3])
    assert narrow[4] == 1
    assert np.array_equal(wide, huge, equal_nan=True)
