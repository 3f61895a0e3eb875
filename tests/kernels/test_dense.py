import numpy as np
import pytest
from tolerances import assert_close

from nbnet.kernels import chunks
from nbnet.kernels.dense import cell, grid, transposed_shape
from nbnet.kernels.dense.cpu import DEPTH, PACKED

from .harness import COMPILED, DTYPES, Out, check, check_gradient, large, not_simulated, output_of, run, simulated

SHAPES = [
    (1, 1, 1),
    (2, 3, 5),
    (17, 9, 3),
    *simulated((9, 12, 20)),
    *large((1000, 300, 3), (1030, 65, 33), (333, 784, 17), (3, 20, 1000), (190, 200, 150), (1100, 300, 70), (300, 784, 70)),
]
SMALL = SHAPES[:3]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make(rng, shape):
    """x, weight, bias, dy."""
    rows, inputs, outputs = shape
    return rng.normal(size=(rows, inputs)), rng.normal(size=(inputs, outputs)), rng.normal(size=outputs), rng.normal(size=(rows, outputs))


def transposed(shape):
    return Out(transposed_shape(*shape), scratch=True)


def gradients(shape):
    return Out(shape[1:]), Out(shape[2:])


@not_simulated
def test_shapes_make_several_chunks():
    # The last two have packed cells and several blocks of DEPTH: of weights in forward, of dy in backward_weights.
    forward = [grid(rows, outputs, inputs) for rows, inputs, outputs in SHAPES[3:]]
    assert forward == [(4, 1), (2, 2), (4, 1), (1, 1), (1, 4), (16, 2), (4, 2)]
    assert [grid(inputs, outputs, rows) for rows, inputs, outputs in SHAPES][-4:] == [(1, 1), (2, 4), (4, 2), (8, 2)]
    assert 1100 // 16 >= PACKED <= 784 // 8
    assert DEPTH < 300


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 3136, 128), (64, 128, 3136), (100_000, 64, 64), (1, 1, 10**6), (17, 1000, 129)])
def test_grid_covers_the_result_once(shape):
    rows, columns, depth = shape
    down, across = grid(rows, columns, depth)
    count = np.zeros((min(rows, 5000), columns), int) if rows * columns < 10**7 else None
    area = 0
    for k in range(down * across):
        first, last, left, right = cell(k, down, across, rows, columns)
        area += (last - first) * (right - left)
        assert last > first
        assert right > left
        if count is not None:
            count[first:last, left:right] += 1
    assert area == rows * columns
    assert count is None or (count == 1).all()


@dtypes
@shapes
def test_forward(rng, dtype, shape):
    x, weight, bias, dy = make(rng, shape)
    check("dense.forward", dtype, "matmul", [x, weight, bias, 1.0, Out(dy.shape), None, None, None])


@pytest.mark.parametrize("slope", [0.0, 0.1])
@dtypes
@pytest.mark.parametrize("shape", [(2, 3, 5), *simulated((9, 12, 20)), *large((1030, 65, 33), (190, 200, 150))], ids=str)
def test_forward_with_an_activation(rng, dtype, shape, slope):
    """On cuda (9, 12, 20) is a sum of two parts: the activation is applied after they are added."""
    x, weight, bias, dy = make(rng, shape)
    check("dense.forward", dtype, "matmul", [x, weight, bias, slope, Out(dy.shape), None, None, None])


@dtypes
@shapes
def test_forward_with_statistics(rng, dtype, shape):
    """y is the same, and the same pass computes the statistics of its columns."""
    x, weight, bias, dy = make(rng, shape)
    rows, inputs, outputs = shape
    partials = Out((grid(rows, outputs, inputs)[0], 3, outputs), np.float64, scratch=True)
    sums = [Out((outputs,), np.float64, precision=dtype)] * 2
    check("dense.forward", dtype, "matmul", [x, weight, bias, 1.0, Out(dy.shape), partials, *sums])
    (plain,) = run("dense.forward", "parallel", dtype, [x, weight, bias, 1.0, Out(dy.shape), None, None, None])
    assert_close(run("dense.forward", "parallel", dtype, [x, weight, bias, 1.0, Out(dy.shape), partials, *sums])[0], plain, "exact")


@dtypes
@shapes
def test_backward_data(rng, dtype, shape):
    x, weight, _, dy = make(rng, shape)
    check("dense.backward_data", dtype, "matmul", [dy, weight, transposed(shape), Out(x.shape)])


@dtypes
@shapes
def test_backward_weights(rng, dtype, shape):
    x, _, _, dy = make(rng, shape)
    check("dense.backward_weights", dtype, "matmul", [x, dy, *gradients(shape)])


NORMED = [(1, 1, 1), (5, 2, 3), (17, 3, 9), *simulated((9, 4, 20)), *large((1000, 3, 300), (4099, 8, 33))]


def through_norm(rng, shape, dtype, offset=0.0):
    """x about `offset`, dy, y, weight, mean, center, and the sum of dy's rows; and scratch."""
    rows, inputs, outputs = shape
    x, weight, bias, dy = (np.asarray(array, dtype).astype(float) for array in make(rng, shape))
    x += offset
    y = x @ weight + bias
    mean, parts = y.mean(axis=0), chunks.count(rows, outputs)
    scratch = Out((parts, inputs, outputs), np.float64, scratch=True), Out((parts, inputs, inputs + 1), np.float64, scratch=True)
    return [x, dy, y, weight, mean, mean.astype(np.float32).astype(float), dy.sum(axis=0)], scratch


@dtypes
@pytest.mark.parametrize("shape", NORMED, ids=str)
def test_backward_weights_norm(rng, dtype, shape):
    arrays, scratch = through_norm(rng, shape, dtype)
    check("dense.backward_weights_norm", dtype, "matmul", [*arrays, *rng.normal(size=(3, shape[2])), *scratch, *gradients(shape)])


@pytest.mark.parametrize("shape", NORMED, ids=str)
def test_backward_weights_norm_of_inputs_far_from_0(rng, shape):
    """With a, b and c of a batch's own statistics, whose gradients sum to 0. Second moments about 0 would lose most digits."""
    arrays, scratch = through_norm(rng, shape, "float64", 1e4)
    *_, mean, center, sum_dy = arrays
    a, c = rng.normal(size=(2, shape[2]))
    b = -a * sum_dy / shape[0] - c * (mean - center)
    dweight, dbias = gradients(shape)
    expected = run("dense.backward_weights_norm", "numpy", "float64", [*arrays, a, b, c, *scratch, dweight, dbias])
    shifted = arrays[0] - 1e4  # the same gradient, since the factors of the offset sum to 0
    for backend in COMPILED:
        found = run("dense.backward_weights_norm", backend, "float64", [*arrays, a, b, c, *scratch, dweight, dbias])
        exact = shifted.T @ (a * arrays[1] + b + c * (arrays[2] - center))
        assert np.abs(found[0] - exact).max() <= max(2 * np.abs(expected[0] - exact).max(), 1e-9), backend


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_gradient_of_x(rng, shape):
    x, weight, bias, dy = make(rng, shape)
    args = [dy, weight, transposed(shape), Out(x.shape)]
    check_gradient(
        lambda x: output_of("dense.forward", [x, weight, bias, 1.0, Out(dy.shape), None, None, None]), "dense.backward_data", args, x, dy
    )


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_gradient_of_weight_and_bias(rng, shape):
    x, weight, bias, dy = make(rng, shape)
    dweight, dbias = gradients(shape)

    def of_weight(weight):
        return output_of("dense.forward", [x, weight, bias, 1.0, Out(dy.shape), None, None, None])

    def of_bias(bias):
        return output_of("dense.forward", [x, weight, bias, 1.0, Out(dy.shape), None, None, None])

    hidden = Out(dbias.shape, scratch=True), Out(dweight.shape, scratch=True)
    check_gradient(of_weight, "dense.backward_weights", [x, dy, dweight, hidden[0]], weight, dy)
    check_gradient(of_bias, "dense.backward_weights", [x, dy, hidden[1], dbias], bias, dy)


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.1])
@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_activation_of_nan_and_infinity(rng, backend, slope):
    """As in the layers ReLU and LeakyReLU: ReLU of minus infinity is 0, and NaN stays NaN."""
    bias = np.array([np.nan, -np.inf, np.inf, -3.0, 3.0, 0.0])
    expected = {1.0: bias, 0.0: np.array([np.nan, 0, np.inf, 0, 3, 0]), 0.1: np.array([np.nan, -np.inf, np.inf, -0.3, 3, 0])}
    (y,) = run("dense.forward", backend, "float32", [np.zeros((2, 3)), np.zeros((3, 6)), bias, slope, Out((2, 6)), None, None, None])
    assert_close(y, np.tile(expected[slope], (2, 1)), "elementwise")


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_nan_stays_in_its_row(rng, backend):
    x, weight, bias, dy = make(rng, (17, 9, 3))
    x[4, 8] = np.nan
    (y,) = run("dense.forward", backend, "float32", [x, weight, bias, 1.0, Out(dy.shape), None, None, None])
    assert np.flatnonzero(np.isnan(y).any(axis=1)).tolist() == [4]
