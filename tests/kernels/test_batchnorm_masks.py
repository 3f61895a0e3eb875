"""A row of weight 0 has no influence, whatever it holds; nor has a single masked element."""

import numpy as np
import pytest
from tolerances import assert_close

from .harness import COMPILED, DTYPES, Out, check, run, same_bits
from .test_batchnorm import MANY, affine, partials, sums, weights_of

SHAPE = (MANY, 3)
VALUES = [1e8, np.nan, -np.inf]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
values = pytest.mark.parametrize("value", VALUES, ids=str)
kinds = pytest.mark.parametrize("weighted", ["rows", "elements"])


def masked_weights(rng, weighted):
    """Weights, many of which are 0: the first ones, the last one, all of several chunks, and others here and there."""
    weights = weights_of(rng, SHAPE, weighted)
    weights[rng.random(weights.shape) < 0.3] = 0
    weights[: MANY * 2 // 3] = 0
    weights[-1] = 0
    return weights


def kept_moments(x, weights):
    """The weighted mean, and the sum of squared deviations from it, of the rest."""
    weights = np.broadcast_to(weights, x.shape)
    columns = [(column[w > 0], w[w > 0]) for column, w in zip(x.T, weights.T)]
    means = [(w * column).sum() / w.sum() for column, w in columns]
    return np.array(means), np.array([(w * (column - mean) ** 2).sum() for (column, w), mean in zip(columns, means)])


@kinds
@values
@dtypes
def test_moments(rng, dtype, value, weighted):
    x, weights = rng.normal(3, 2, SHAPE).astype(dtype).astype(np.float64), masked_weights(rng, weighted).astype(dtype).astype(np.float64)
    outputs = [sums(SHAPE, "float64"), sums(SHAPE, "float64")]
    found = check("batchnorm.moments", dtype, "reduction", [np.where(weights > 0, x, value), weights, partials(SHAPE), *outputs])
    for array, right in zip(found, kept_moments(x, weights)):
        assert_close(array, right, "reduction")
    for backend in COMPILED:
        both = [
            run("batchnorm.moments", backend, dtype, [each, weights, partials(SHAPE), *outputs])
            for each in (x, np.where(weights > 0, x, value))
        ]
        for a, b in zip(*both):
            same_bits(a, b, f"with and without {value} in masked rows on {backend}")


@kinds
@values
@pytest.mark.parametrize("slope", [1.0, 0.2])
@dtypes
def test_backward_reduce(rng, dtype, slope, value, weighted):
    weights, numbers = masked_weights(rng, weighted), affine(rng, 3)
    kept = np.broadcast_to(weights > 0, SHAPE)
    x, dy, outputs = (
        rng.normal(size=SHAPE),
        np.where(kept, rng.normal(size=SHAPE), 0),
        [partials(SHAPE), sums(SHAPE, dtype), sums(SHAPE, dtype)],
    )
    wanted = run("batchnorm.backward_reduce", "numpy", "float64", [dy, np.where(kept, x, 0), None, *numbers, slope, *outputs])
    args = [np.where(kept, dy, 0 if np.isfinite(value) else value), np.where(kept, x, value), weights, *numbers, slope, *outputs]
    for array, right in zip(check("batchnorm.backward_reduce", dtype, "reduction", args), wanted):
        assert_close(array, right, "reduction", dtype)


@kinds
@values
@pytest.mark.parametrize("slope", [1.0, 0.2])
@dtypes
def test_backward_apply(rng, dtype, slope, value, weighted):
    """dx of a masked element is a * g, as with any other weight, and 0 where that is not finite."""
    weights, numbers, (a, b, c) = masked_weights(rng, weighted), affine(rng, 3), affine(rng, 3)
    kept = np.broadcast_to(weights > 0, SHAPE)
    x, dy = np.where(kept, rng.normal(size=SHAPE), value), rng.normal(size=SHAPE)
    dy[-1] = 0
    dy[:3] = np.array([[np.nan], [np.inf], [-np.inf]])
    (dx,) = check("batchnorm.backward_apply", dtype, "elementwise", [dy, x, weights, *numbers, slope, a, b, c, Out(SHAPE)])
    with np.errstate(invalid="ignore"):
        g = np.where((x - numbers[0]) * numbers[1] + numbers[2] > 0, dy, slope * dy)
    assert_close(dx[~kept], np.where(np.isfinite(g), a * g, 0)[~kept], "elementwise", "float32")
    assert not dx[[0, 1, 2, -1]].any()


@pytest.mark.parametrize("backend", ["numpy", *COMPILED])
def test_what_is_not_masked_is_not_hidden(rng, backend):
    """NaN with a weight above 0 reaches the results."""
    x, weights, numbers = rng.normal(size=SHAPE), masked_weights(rng, "rows"), affine(rng, 3)
    row = int(np.flatnonzero(weights)[0])
    x[row, 1] = np.nan
    for op, args in {
        "moments": [x, weights, partials(SHAPE), sums(SHAPE), sums(SHAPE)],
        "backward_reduce": [x, x, weights, *numbers, 0.5, partials(SHAPE), sums(SHAPE), sums(SHAPE)],
    }.items():
        for array in run(f"batchnorm.{op}", backend, "float32", args):
            assert np.isnan(array).tolist() == [False, True, False]
    (dx,) = run("batchnorm.backward_apply", backend, "float32", [x, x, weights, *numbers, 0.5, *affine(rng, 3), Out(SHAPE)])
    assert np.argwhere(np.isnan(dx)).tolist() == [[row, 1]]
