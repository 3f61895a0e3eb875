"""Moving averages of named arrays, and feature scaling."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError


def test_a_variable_starts_at_its_value_and_a_tensor_at_zero():
    variable, tensor = nb.ExponentialMovingAverage(0.9), nb.ExponentialMovingAverage(0.9)
    for value in (1.0, 2.0, 4.0):
        variable.apply({"a": value})
        tensor.apply({"a": value}, start={"a": 0})
    assert_close(variable.average("a"), np.array(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 4), "elementwise")
    assert_close(tensor.average("a"), np.array(0.1 * (0.81 * 1 + 0.9 * 2 + 4)), "elementwise")


def test_num_updates_follows_faster():
    ema, expected = nb.ExponentialMovingAverage(0.9), 5.0
    ema.apply({"a": 5.0}, num_updates=0)
    for t in range(1, 5):
        ema.apply({"a": float(t)}, num_updates=t)
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * t
    assert_close(ema.average("a"), np.array(expected), "elementwise")


def test_zero_debias_is_a_weighted_mean(rng):
    values = rng.normal(3, 1, (6, 2))
    ema = nb.ExponentialMovingAverage(0.99, zero_debias=True)
    for value in values:
        ema.apply({"a": value})
    weights = 0.99 ** np.arange(5, -1, -1)
    assert_close(ema.average("a"), weights @ values / weights.sum(), "reduction")


def test_weights_of_a_model_swap_in_and_out(rng):
    model = nb.Sequential([nb.Dense(3), nb.BatchNorm()])
    model.build((4,), backend="serial")
    ema, seen = nb.ExponentialMovingAverage(0.5), []
    for _ in range(3):
        seen.append(model.params["0.dense.weight"].value.copy())
        ema.apply({name: param.value for name, param in model.params.items()})
        model.params["0.dense.weight"].value += 1
    now = model.params["0.dense.weight"].value.copy()
    expected = 0.25 * seen[0] + 0.25 * seen[1] + 0.5 * seen[2]
    with ema.swapped(model):
        assert_close(model.params["0.dense.weight"].value, expected, "elementwise")
    assert np.array_equal(model.params["0.dense.weight"].value, now)
    assert set(ema.averages()) == set(model.params)


def test_bad_averages():
    with pytest.raises(ArgumentError, match=r"decay=1\.5"):
        nb.ExponentialMovingAverage(1.5)
    ema = nb.ExponentialMovingAverage(0.9, zero_debias=True)
    with pytest.raises(ArgumentError, match="no average of 'a' yet"):
        ema.average("a")
    with pytest.raises(ArgumentError, match="leave start= out"):
        ema.apply({"a": 1.0}, start={"a": 0.0})
    ema.apply({"a": np.ones(2), "b": 1.0})
    with pytest.raises(ShapeError, match=r"'a' has shape \(3,\)"):
        ema.apply({"b": 9.0, "a": np.ones(3)})
    assert ema.average("b") == 1
