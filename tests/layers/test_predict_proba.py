"""Class probabilities of a model."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError, ShapeError


def built(*layers):
    model = nb.Sequential([nb.Dense(3), *layers])
    model.build((4,), backend="serial", seed=1)
    return model


def test_probabilities_are_the_softmax_of_the_logits_in_float64(rng):
    model, x = built(), 50 * rng.standard_normal((7, 4), dtype=np.float32)
    found, logits = model.predict_proba(x, batch_size=3), model.predict(x).astype(np.float64)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert_close(found, expected / expected.sum(axis=1, keepdims=True), "elementwise", "float64")
    assert found.dtype == np.float64
    assert_close(found.sum(axis=1), np.ones(7), "elementwise", "float64")


@pytest.mark.parametrize("last", [lambda: nb.Softmax(), lambda: nb.Sequential([nb.Softmax()])])
def test_a_model_that_ends_with_softmax_gives_them_already(last, rng):
    model, x = built(last()), rng.standard_normal((5, 4), dtype=np.float32)
    assert model.predict_proba(x).tobytes() == model.predict(x).tobytes()


def test_bad_arguments(rng):
    with pytest.raises(ArgumentError, match="batch_size=0"):
        built().predict_proba(rng.standard_normal((5, 4), dtype=np.float32), batch_size=0)
    with pytest.raises(ShapeError):
        built().predict_proba(rng.standard_normal((5, 3), dtype=np.float32))
