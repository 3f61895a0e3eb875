import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks

from .harness import COMPILED, DTYPES, Out, call, check, check_gradient, large, not_simulated, output_of, run, simulated

ELEMENTWISE = {"relu": (), "leaky_relu": (0.2,), "tanh": (), "sigmoid": ()}  # name: options
SIZES = [1, 7, *simulated(69), *large(15, 16, 17, 1000, 70001)]  # around the numbers of a register
ROWS = [(1, 1), (1, 17), (5, 3), *simulated((9, 6)), *large((3001, 17), (70000, 1), (257, 1500))]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
names = pytest.mark.parametrize("name", ELEMENTWISE)


@not_simulated
def test_sizes_make_several_chunks():
    assert chunks.count(SIZES[-1], 1) == 2
    assert chunks.count(3001, 17 * 2) == 2


@pytest.mark.parametrize("size", SIZES)
@dtypes
@names
def test_forward(rng, dtype, name, size):
    check(f"activation.{name}_forward", dtype, "elementwise", [rng.normal(0, 3, size), *ELEMENTWISE[name], Out((size,))])


@pytest.mark.parametrize("size", SIZES)
@dtypes
@names
def test_backward(rng, dtype, name, size):
    y = rng.uniform(-1, 1, size)
    y[::3] = 0
    check(f"activation.{name}_backward", dtype, "elementwise", [rng.normal(size=size), y, *ELEMENTWISE[name], Out((size,))])


@names
def test_gradient(rng, name):
    options = ELEMENTWISE[name]
    x, dy = np.array([-3, -1.5, -0.6, -0.1, 0.1, 0.4, 0.7, 2, 9.0]), rng.normal(size=9)

    def forward(x):
        return output_of(f"activation.{name}_forward", [x, *options, Out((9,))])

    check_gradient(forward, f"activation.{name}_backward", [dy, forward(x), *options, Out((9,))], x, dy)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
@names
def test_in_place(rng, dtype, name, backend):
    """y may be x, and dx may be dy."""
    options = ELEMENTWISE[name]
    x, dy = rng.normal(size=100).astype(dtype), rng.normal(size=100).astype(dtype)
    y, dx = np.empty_like(x), np.empty_like(x)
    call(f"activation.{name}_forward", backend, x, *options, y)
    call(f"activation.{name}_backward", backend, dy, y, *options, dx)
    call(f"activation.{name}_forward", backend, x, *options, x)
    call(f"activation.{name}_backward", backend, dy, y, *options, dy)
    assert_close(x, y, "exact")
    assert_close(dy, dx, "exact")


@dtypes
@names
def test_extremes(dtype, name):
    """Infinities and huge values give the limits of the function, without a warning; NaN stays NaN."""
    x = np.array([-np.inf, -1e30, -1e3, -50, -1e-4, -1e-30, 0, 1e-30, 1e-4, 50, 1e3, 1e30, np.inf, np.nan])
    (y,) = check(f"activation.{name}_forward", dtype, "elementwise", [x, *ELEMENTWISE[name], Out(x.shape)])
    low, high = {"relu": (0, np.inf), "leaky_relu": (-np.inf, np.inf), "tanh": (-1, 1), "sigmoid": (0, 1)}[name]
    assert (y[0], y[-2]) == (low, high)
    assert np.flatnonzero(np.isnan(y)).tolist() == [13]


@pytest.mark.parametrize("backend", COMPILED)
@dtypes
def test_small_values_keep_their_digits(dtype, backend):
    """tanh(x) is about x, and sigmoid(x) about exp(x) far below 0: relative errors matter there."""
    small = np.array([1e-30, -1e-12, 1e-6, 1e-3, -0.3]).astype(dtype).astype(np.float64)
    for x in small:
        (y,) = run("activation.tanh_forward", backend, dtype, [np.array([x]), Out((1,))])
        assert_close(y, np.tanh([x]), "elementwise")
    for x in (-10.0, -40.0, -80.0):
        (y,) = run("activation.sigmoid_forward", backend, dtype, [np.array([x]), Out((1,))])
        assert_close(y, np.exp([x]) / (1 + np.exp([x])), "elementwise")


def test_sigmoid_at_1000():
    for backend in ("numpy", *COMPILED):
        (y,) = run("activation.sigmoid_forward", backend, "float32", [np.array([-1e3, 1e3]), Out((2,))])
        assert_close(y, np.array([0.0, 1.0]), "exact")


@pytest.mark.parametrize("shape", ROWS, ids=str)
@dtypes
def test_softmax_forward(rng, dtype, shape):
    (y,) = check("activation.softmax_forward", dtype, "elementwise", [rng.normal(0, 3, shape), Out(shape)])
    assert_close(y.sum(axis=1), np.ones(shape[0]), "reduction", dtype)


@pytest.mark.parametrize("shape", ROWS, ids=str)
@dtypes
def test_softmax_backward(rng, dtype, shape):
    y = output_of("activation.softmax_forward", [rng.normal(size=shape), Out(shape)])
    check("activation.softmax_backward", dtype, "elementwise", [rng.normal(size=shape), y, Out(shape)])


def test_softmax_gradient(rng):
    x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

    def forward(x):
        return output_of("activation.softmax_forward", [x, Out(x.shape)])

    check_gradient(forward, "activation.softmax_backward", [dy, forward(x), Out(x.shape)], x, dy)


@dtypes
def test_softmax_of_large_values_and_nan(dtype):
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4], [0, np.nan, 1], [1, 2, 3]])
    (y,) = check("activation.softmax_forward", dtype, "elementwise", [x, Out(x.shape)])
    assert_close(y[1], np.full(3, 1 / 3), "elementwise", dtype)
    assert np.isnan(y).all(axis=1).tolist() == [False, False, True, False]
    assert not np.isnan(y[[0, 1, 3]]).any()


@dtypes
def test_softmax_of_many_classes(dtype):
    """The largest number counts wherever it is: on cuda several warps share a row of 128 numbers or more."""
    x = np.full((6, 149), -1e4)
    x[np.arange(6), [0, 3, 4, 8, 77, 148]] = 1e4
    (y,) = check("activation.softmax_forward", dtype, "elementwise", [x, Out(x.shape)])
    assert_close(y, x > 0, "exact")
    check("activation.softmax_backward", dtype, "elementwise", [np.arange(6 * 149.0).reshape(x.shape), y, Out(x.shape)])


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_softmax_in_place(rng, backend):
    x, dy = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    y, dx = np.empty_like(x), np.empty_like(x)
    call("activation.softmax_forward", backend, x, y)
    call("activation.softmax_backward", backend, dy, y, dx)
    call("activation.softmax_forward", backend, x, x)
    call("activation.softmax_backward", backend, dy, y, dy)
    assert_close(x, y, "elementwise")
    assert_close(dy, dx, "elementwise")
