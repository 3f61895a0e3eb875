"""Feature scaling."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BuildError, DTypeError, ShapeError


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scaler(rng, dtype):
    x = rng.normal([0, 200, -1e4], [1, 30, 1], (500, 3)).astype(dtype)
    scaler = nb.StandardScaler().fit(x)
    wide = x.astype(np.float64)
    y = scaler.transform(x)
    assert y.dtype == dtype
    near = wide - wide[0]  # NumPy's own sums lose digits far from zero
    assert_close(y, (near - near.mean(axis=0)) / near.std(axis=0), "reduction")
    assert_close(scaler.inverse_transform(y), wide, "elementwise" if dtype == "float32" else "reduction")
    assert scaler.fit(x) is scaler
    parts = nb.StandardScaler()
    for batch in np.split(x, [7, 8, 300]):
        assert parts.partial_fit(batch) is parts
    assert parts.count == 500
    assert_close(parts.mean, scaler.mean, "reduction", dtype="float64")
    assert_close(parts.variance, scaler.variance, "reduction", dtype="float64")


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8, -3e-20])
def test_a_constant_feature_stays_finite(rng, value):
    x = np.stack([np.full(1000, value), rng.standard_normal(1000)], axis=1)
    scaler = nb.StandardScaler()
    for batch in np.array_split(x, 7):
        scaler.partial_fit(batch)
    assert abs(scaler.transform(x)[:, 0]).max() <= 1e-6 * abs(value)
    assert_close(scaler.inverse_transform(scaler.transform(x)), x, "reduction")


def test_a_constant_feature_is_only_shifted():
    scaler = nb.StandardScaler().fit(np.full((5, 1), 3.0))
    assert scaler.transform(np.array([[3.0], [5.0]])).tolist() == [[0], [2]]
    assert scaler.inverse_transform(np.array([[0.0], [2.0]])).tolist() == [[3], [5]]


def test_bad_scaling():
    with pytest.raises(BuildError, match=r"call fit\(x\) first"):
        nb.StandardScaler().transform(np.ones((2, 2)))
    scaler = nb.StandardScaler().fit(np.ones((2, 2)))
    with pytest.raises(ShapeError, match=r"expected \(..., 2\) as in fit"):
        scaler.transform(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="3 features, but the batches before had 2"):
        scaler.partial_fit(np.ones((2, 3)))
    with pytest.raises(DTypeError, match="int64"):
        scaler.fit(np.ones((2, 2), np.int64))
