"""The vector functions against higher precision: errors in units in the last place, and all special cases."""

import numpy as np
import pytest
from numba import njit
from tolerances import assert_ulp

from nbnet.kernels.cpu.compile import C_OPTIONS, body
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import absolute, exp, exp_of_negative, exp_of_sigmoid, exp_of_tanh, log, sigmoid, tanh
from nbnet.kernels.cpu.vector import load, store, zero


def over(function):
    @njit(**C_OPTIONS)
    def run(x, y):
        for i in range(0, x.size, lanes(x)):
            store(y, i, x.size - i, function(load(x, i, x.size - i)))

    return lambda x: _call(run, x)


def _call(run, x):
    y = np.empty_like(x)
    run(x, y)
    return y


@body
def _whole_tanh(x):
    return tanh(x, exp_of_tanh(x))


@body
def _whole_sigmoid(x):
    return sigmoid(x, exp_of_sigmoid(x))


@body
def _of_negative(x):
    return exp_of_negative(zero(x) - absolute(x), zero(x))


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


FUNCTIONS = {
    "exp": (over(exp), np.exp),
    "exp_of_negative": (over(_of_negative), lambda x: np.exp(-np.abs(x))),
    "log": (over(log), np.log),
    "tanh": (over(_whole_tanh), np.tanh),
    "sigmoid": (over(_whole_sigmoid), _sigmoid),
}
functions = pytest.mark.parametrize("name", FUNCTIONS)


def check(name, x):
    """Against longdouble: 80 bits on x86-64; where it is float64, the reference itself is off by half a unit."""
    mine, true = FUNCTIONS[name]
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):  # of signalling NaNs, too
        assert_ulp(mine(x), true(x.astype(wide)), "vecmath")


@functions
def test_float32_over_all_bit_patterns(name):
    """Every 257th of the 2^32 numbers, including NaN and infinities."""
    for start in range(0, 1 << 32, 1 << 30):
        x = np.arange(start + 3, start + (1 << 30), 257, dtype=np.uint32).view(np.float32)
        check(name, x)


@functions
def test_float64(name, rng):
    check(name, rng.uniform(-760, 760, 1_000_000))
    check(name, rng.uniform(-3, 3, 1_000_000))
    check(name, rng.uniform(0.17, 0.35, 1_000_000))  # where tanh is least precise
    check(name, rng.choice([-1, 1], 300_000) * 2.0 ** rng.uniform(-1074, 10, 300_000))


@functions
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(name, dtype):
    limits = np.finfo(dtype)
    edges = [
        0.0,
        limits.tiny,
        limits.smallest_subnormal,
        limits.max,
        np.inf,
        np.nan,
        0.5,
        0.625,
        1.0,
        88.72283,
        88.72284,
        103.97,
        709.782712893384,
        745.13,
    ]
    x = np.array(edges + [-edge for edge in edges], dtype)
    mine = FUNCTIONS[name][0](x)
    expected = {
        "exp": {0.0: 1, np.inf: np.inf, -np.inf: 0},
        "exp_of_negative": {0.0: 1, np.inf: 0, -np.inf: 0},
        "log": {0.0: -np.inf, np.inf: np.inf, 1.0: 0},
        "tanh": {0.0: 0, np.inf: 1, -np.inf: -1},
        "sigmoid": {0.0: 0.5, np.inf: 1, -np.inf: 0},
    }[name]
    for value, result in expected.items():
        assert mine[list(x).index(value)] == result
    assert np.isnan(mine[np.isnan(x)]).all()
    check(name, x)


@functions
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_place_in_a_vector_does_not_matter(name, dtype, rng):
    mine = FUNCTIONS[name][0]
    x = rng.normal(0, 3, 67).astype(dtype)
    x = np.abs(x) if name == "log" else x
    whole = mine(x)
    for start in range(1, 20):
        assert mine(x[start:].copy()).tobytes() == whole[start:].tobytes()


def test_tanh_keeps_the_sign_of_zero():
    assert np.signbit(FUNCTIONS["tanh"][0](np.array([-0.0, 0.0]))).tolist() == [True, False]
