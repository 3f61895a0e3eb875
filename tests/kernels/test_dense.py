import numpy as np
import pytest

from nbnet.kernels import chunks
from nbnet.kernels.dense import MACS, weight_chunks

from .harness import COMPILED, DTYPES, Out, check, check_gradient, large, not_simulated, output_of, run, simulated

SHAPES = [(1, 1, 1), (2, 3, 5), (17, 9, 3), *simulated((9, 12, 20)), *large((1030, 65, 33), (333, 784, 17), (3, 20, 1000))]  # M, I, O
SMALL = SHAPES[:3]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make(rng, shape):
    """x, weight, bias, dy."""
    rows, inputs, outputs = shape
    return rng.normal(size=(rows, inputs)), rng.normal(size=(inputs, outputs)), rng.normal(size=outputs), rng.normal(size=(rows, outputs))


def turned(shape):
    return Out((shape[2] + 1, shape[1]), scratch=True)


def gradients(shape):
    rows, inputs, outputs = shape
    partials = Out((weight_chunks(rows, inputs, outputs), inputs + 1, outputs), scratch=True)
    return partials, Out((inputs, outputs)), Out((outputs,))


@not_simulated
def test_shapes_make_several_chunks():
    assert [chunks.count(rows, inputs * outputs // MACS) for rows, inputs, outputs in SHAPES] == [1, 1, 1, 2, 4, 1]
    assert weight_chunks(333, 784, 17) == 4


@dtypes
@shapes
def test_forward(rng, dtype, shape):
    x, weight, bias, dy = make(rng, shape)
    check("dense.forward", dtype, "matmul", [x, weight, bias, Out(dy.shape)])


@dtypes
@shapes
def test_backward_data(rng, dtype, shape):
    x, weight, _, dy = make(rng, shape)
    check("dense.backward_data", dtype, "matmul", [dy, weight, turned(shape), Out(x.shape)])


@dtypes
@shapes
def test_backward_weights(rng, dtype, shape):
    x, _, _, dy = make(rng, shape)
    check("dense.backward_weights", dtype, "matmul", [x, dy, *gradients(shape)])


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_gradient_of_x(rng, shape):
    x, weight, bias, dy = make(rng, shape)
    args = [dy, weight, turned(shape), Out(x.shape)]
    check_gradient(lambda x: output_of("dense.forward", [x, weight, bias, Out(dy.shape)]), "dense.backward_data", args, x, dy)


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_gradient_of_weight_and_bias(rng, shape):
    x, weight, bias, dy = make(rng, shape)
    partials, dweight, dbias = gradients(shape)

    def of_weight(weight):
        return output_of("dense.forward", [x, weight, bias, Out(dy.shape)])

    def of_bias(bias):
        return output_of("dense.forward", [x, weight, bias, Out(dy.shape)])

    hidden = Out(dbias.shape, scratch=True), Out(dweight.shape, scratch=True)
    check_gradient(of_weight, "dense.backward_weights", [x, dy, partials, dweight, hidden[0]], weight, dy)
    check_gradient(of_bias, "dense.backward_weights", [x, dy, partials, hidden[1], dbias], bias, dy)


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_nan_stays_in_its_row(rng, backend):
    x, weight, bias, dy = make(rng, (17, 9, 3))
    x[4, 8] = np.nan
    (y,) = run("dense.forward", backend, "float32", [x, weight, bias, Out(dy.shape)])
    assert np.flatnonzero(np.isnan(y).any(axis=1)).tolist() == [4]
