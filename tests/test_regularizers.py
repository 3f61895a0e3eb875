"""Penalties of weights."""

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError

VALUE = np.array([[-2.0, 0.5], [0.0, 3.0]])


def test_gradients():
    assert nb.regularizers.l2(0.25)(VALUE).tolist() == [[-1, 0.25], [0, 1.5]]
    assert nb.regularizers.l1(0.25)(VALUE).tolist() == [[-0.25, 0.25], [0, 0.25]]


@pytest.mark.parametrize("kind", [nb.regularizers.l1, nb.regularizers.l2])
def test_strengths(kind):
    assert not kind(0.0)(VALUE).any()
    for strength in (-1e-9, float("inf"), float("nan"), "1"):
        with pytest.raises(ArgumentError, match=r"strength=.*: expected a number that is at least 0"):
            kind(strength)
