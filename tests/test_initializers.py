"""Initialisers: their variances, and what they depend on."""

import math

import pytest

from nbnet import initializers
from nbnet.errors import ArgumentError


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", 2 / 900),
        ("he_uniform", 2 / 900),
        ("glorot_normal", 2 / (900 + 1800)),
        ("glorot_uniform", 2 / (900 + 1800)),
        ("lecun_normal", 1 / 900),
        ("lecun_uniform", 1 / 900),
    ],
)
def test_variance_of_initializers(name, variance):
    values = initializers.get(name)(initializers.generator(1, 2), (3, 3, 100, 200))
    error = 4 * math.sqrt(2 / values.size)  # four standard errors of a variance, relative
    assert abs(values.var() / variance - 1) < error
    assert abs(values.mean()) < 4 * math.sqrt(variance / values.size)
    if name.endswith("uniform"):
        assert abs(values).max() <= math.sqrt(3 * variance)


def test_generators_depend_on_seed_and_stream_alone():
    draw = [initializers.generator(*key).random() for key in [(1, 2), (1, 2), (2, 2), (1, 3)]]
    assert draw[0] == draw[1]
    assert len(set(draw)) == 3


def test_fans_need_two_axes():
    with pytest.raises(ArgumentError, match="at least 2 axes"):
        initializers.get("he_normal")(initializers.generator(0, 0), (5,))
