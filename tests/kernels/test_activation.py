import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks
from nbnet.kernels.activations import TABLE

from .harness import COMPILED, DTYPES, Out, call, check, check_gradient, differences, large, not_simulated, output_of, run, simulated

ELEMENTWISE = dict.fromkeys(TABLE, ()) | {  # name: options
    "leaky_relu": (0.2,),
    "elu": (1.3, 1.1, 0.7),
    "softplus": (0.8, 12.0),
    "hardtanh": (-0.5, 0.75),
}
LIMITS = {  # name: y at minus and plus infinity, the derivative there
    "relu": (0, np.inf, 0, 1),
    "leaky_relu": (-np.inf, np.inf, 0.2, 1),
    "tanh": (-1, 1, 0, 0),
    "sigmoid": (0, 1, 0, 0),
    "elu": (-1.3 * 1.1, np.inf, 0, 1.1),
    "softplus": (0, np.inf, 0, 1),
    "logsigmoid": (-np.inf, 0, 1, 0),
    "softsign": (-1, 1, 0, 0),
    "hardsigmoid": (0, 1, 0, 0),
    "hardtanh": (-0.5, 0.75, 0, 0),
}
OF_NAN = {"relu": 1, "leaky_relu": 0.2, "hardtanh": 1, "hardsigmoid": 0}  # the derivative at NaN where it is not NaN, as in PyTorch
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


def saved_of(name, x):
    """What backward gets: x, or y."""
    return x if TABLE[name].saves == "x" else output_of(f"activation.{name}_forward", [x, *ELEMENTWISE[name], Out(x.shape)])


@pytest.mark.parametrize("size", SIZES)
@dtypes
@names
def test_backward(rng, dtype, name, size):
    x = rng.uniform(-1, 1, size) if TABLE[name].saves == "y" else rng.normal(0, 3, size)
    x[::3] = 0
    check(f"activation.{name}_backward", dtype, "elementwise", [rng.normal(size=size), x, *ELEMENTWISE[name], Out((size,))])


@names
def test_gradient(rng, name):
    options = ELEMENTWISE[name]
    x, dy = np.array([-3.5, -1.5, -0.6, -0.1, 0.1, 0.4, 0.7, 2, 9.0]), rng.normal(size=9)

    def forward(x):
        return output_of(f"activation.{name}_forward", [x, *options, Out((9,))])

    check_gradient(forward, f"activation.{name}_backward", [dy, saved_of(name, x), *options, Out((9,))], x, dy)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
@dtypes
@names
def test_in_place(rng, dtype, name, backend):
    """y may be x, and dx may be dy."""
    options = ELEMENTWISE[name]
    x, dy = rng.normal(size=100).astype(dtype), rng.normal(size=100).astype(dtype)
    y, dx = np.empty_like(x), np.empty_like(x)
    call(f"activation.{name}_forward", backend, x, *options, y)
    saved = x.copy() if TABLE[name].saves == "x" else y
    call(f"activation.{name}_backward", backend, dy, saved, *options, dx)
    call(f"activation.{name}_forward", backend, x, *options, x)
    call(f"activation.{name}_backward", backend, dy, saved, *options, dy)
    assert_close(x, y, "exact")
    assert_close(dy, dx, "exact")


@dtypes
@names
def test_extremes(dtype, name):
    """Infinities and huge values give the limits of the function and of its derivative, without a warning; NaN stays NaN."""
    x = np.array([-np.inf, -1e30, -1e3, -200, -50, -10, -3, -1e-4, -1e-30, 0, 1e-30, 1e-4, 3, 10, 50, 200, 1e3, 1e30, np.inf, np.nan])
    options = ELEMENTWISE[name]
    (y,) = check(f"activation.{name}_forward", dtype, "elementwise", [x, *options, Out(x.shape)])
    low, high, low_slope, high_slope = LIMITS.get(name, (0, np.inf, 0, 1))
    assert_close(y[[0, -2]], np.array([low, high]), "elementwise")
    assert np.flatnonzero(np.isnan(y)).tolist() == [19]
    (dx,) = check(f"activation.{name}_backward", dtype, "elementwise", [np.ones(x.shape), saved_of(name, x), *options, Out(x.shape)])
    assert_close(dx[[0, -2, -1]], np.array([low_slope, high_slope, OF_NAN.get(name, np.nan)]), "elementwise")
    assert np.isfinite(dx[:-1]).all()


KINKS = {"relu": ([0], [0]), "leaky_relu": ([0], [0.2]), "hardtanh": ([-0.5, 0.75], [0, 0]), "elu": ([0], [1.3 * 1.1 * 0.7])}
KINKS |= {"hardsigmoid": ([-3, 3], [0, 0]), "hardswish": ([-3, 3], [0, 1])}  # name: where the derivative jumps, and its values there


@dtypes
@pytest.mark.parametrize("name", KINKS)
def test_the_derivative_at_a_kink(dtype, name):
    """As in PyTorch."""
    x, slopes = (np.array(values, float) for values in KINKS[name])
    for backend in ("numpy", *COMPILED):
        (dx,) = run(f"activation.{name}_backward", backend, dtype, [np.ones(x.shape), saved_of(name, x), *ELEMENTWISE[name], Out(x.shape)])
        assert_close(dx, slopes, "elementwise")


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


@pytest.mark.parametrize("shape", ROWS, ids=str)
@dtypes
def test_log_softmax(rng, dtype, shape):
    (y,) = check("activation.log_softmax_forward", dtype, "elementwise", [rng.normal(0, 3, shape), Out(shape)])
    assert_close(np.exp(y).sum(axis=1), np.ones(shape[0]), "reduction", dtype)
    check("activation.log_softmax_backward", dtype, "elementwise", [rng.normal(size=shape), y, Out(shape)])


def test_log_softmax_gradient(rng):
    x, dy = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))

    def forward(x):
        return output_of("activation.log_softmax_forward", [x, Out(x.shape)])

    check_gradient(forward, "activation.log_softmax_backward", [dy, forward(x), Out(x.shape)], x, dy)


@dtypes
def test_log_softmax_of_large_values_infinity_and_nan(dtype):
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4], [0, np.nan, 1], [1, 2, -np.inf]])
    (y,) = check("activation.log_softmax_forward", dtype, "elementwise", [x, Out(x.shape)])
    assert_close(y[1], np.full(3, -np.log(3)), "elementwise", dtype)
    assert np.isnan(y).all(axis=1).tolist() == [False, False, True, False]
    assert not np.isnan(y[[0, 1, 3]]).any()
    assert y[3, 2] == -np.inf


PRELU = [((1, 1), 1), ((5, 3), 3), ((9, 6), 1), *large(((3001, 17), 17), ((3001, 17), 1), ((257, 1500), 1500), ((70000, 1), 1))]


@pytest.mark.parametrize(("shape", "weights"), PRELU, ids=str)
@dtypes
def test_prelu(rng, dtype, shape, weights):
    x, weight = rng.normal(size=shape), rng.uniform(-0.5, 0.9, weights)
    x[::3, 0] = 0
    check("activation.prelu_forward", dtype, "elementwise", [x, weight, Out(shape)])
    partials = Out((chunks.count(*shape), 3, shape[1]), np.float64, scratch=True)
    check("activation.prelu_backward", dtype, "reduction", [rng.normal(size=shape), x, weight, partials, Out(shape), Out((weights,))])


@pytest.mark.parametrize("weights", [1, 3])
def test_prelu_gradient(rng, weights):
    x, weight, dy = rng.normal(size=(4, 3)), rng.uniform(-0.5, 0.9, weights), rng.normal(size=(4, 3))
    in_x = differences(lambda x: output_of("activation.prelu_forward", [x, weight, Out(x.shape)]), x, dy)
    in_weight = differences(lambda weight: output_of("activation.prelu_forward", [x, weight, Out(x.shape)]), weight, dy)
    for backend in ("numpy", *COMPILED):
        partials = Out((1, 3, 3), np.float64, scratch=True)
        args = [dy, x, weight, partials, Out(x.shape), Out(weight.shape)]
        dx, dweight = run("activation.prelu_backward", backend, "float64", args)
        assert_close(dx, in_x, "differences")
        assert_close(dweight, in_weight, "differences")


@pytest.mark.parametrize("weights", [1, 2])
def test_prelu_of_positive_infinity_adds_nothing_to_the_weight(weights):
    """The sum is over x that is not above 0: infinity must not get in as 0 times infinity."""
    x, dy, weight = np.array([[np.inf, -2.0], [3.0, -1.0]]), np.array([[1.0, 5.0], [2.0, 7.0]]), np.full(weights, 0.5)
    partials = Out((1, 3, 2), np.float64, scratch=True)
    args = [dy, x, weight, partials, Out(x.shape), Out((weights,))]
    for backend in ("numpy", *COMPILED):
        dx, dweight = run("activation.prelu_backward", backend, "float64", args)
        assert dx.tolist() == [[1.0, 2.5], [2.0, 3.5]]
        assert dweight.tolist() == ([0.0, -17.0] if weights == 2 else [-17.0])


@dtypes
def test_prelu_extremes_and_in_place(dtype):
    x = np.array([[-np.inf, -1, 0], [np.inf, np.nan, 2.0]])
    (y,) = check("activation.prelu_forward", dtype, "exact", [x, np.array([0.5]), Out(x.shape)])
    assert_close(y, np.array([[-np.inf, -0.5, 0], [np.inf, np.nan, 2]]), "exact")
    for backend in ("numpy", *COMPILED):
        x, weight, dy = np.array([[1.0, -2], [3, -4]], dtype), np.array([0.5, 0.25], dtype), np.full((2, 2), 8, dtype)
        call("activation.prelu_backward", backend, dy, x, weight, np.empty((1, 3, 2)), dy, dweight := np.empty_like(weight))
        call("activation.prelu_forward", backend, x, weight, x)
        assert_close(x, np.array([[1.0, -0.5], [3, -1]]), "exact")
        assert_close(dy, np.array([[8.0, 2], [8, 2]]), "exact")
        assert_close(dweight, np.array([0.0, -48]), "exact")


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
