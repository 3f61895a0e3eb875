"""Initialisers, schedules and the errors' helper."""

import math

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import errors, initializers, schedules
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


def test_schedules_at_their_corners():
    corners = {
        "constant": [1, 1, 1],
        "cosine": [1, 0.5, 0],
        "one_cycle": [1 / 25, (1 + math.cos(math.pi * 2 / 7)) / 2, 1e-4 / 25],
    }
    for name, wanted in corners.items():
        schedule = schedules.get(name)
        values = [schedule(progress) for progress in (0, 0.5, 1)]
        assert abs(np.array(values) - wanted).max() < 1e-4, name
    assert_close(np.array(schedules.one_cycle()(0.3)), 1.0, "elementwise")
    assert [schedules.step((0.5,), 0.1)(p) for p in (0, 0.49, 0.5, 1)] == [1, 1, 0.1, 0.1]
    ramp = schedules.warm_up(0.2, schedules.cosine())
    assert (ramp(0), ramp(0.1), ramp(0.2)) == (0, 0.5, 1)
    assert_close(np.array(ramp(0.6)), 0.5, "elementwise")


def test_bad_schedules():
    with pytest.raises(ArgumentError, match="did you mean 'cosine'"):
        schedules.get("cosin")
    with pytest.raises(ArgumentError, match=r"warm=1\.5"):
        schedules.one_cycle(warm=1.5)


def test_unknown_names_the_nearest():
    assert errors.unknown("colour", "gren", ["red", "green"]) == "unknown colour 'gren': did you mean 'green'? choose one of red, green"
    assert "did you mean" not in errors.unknown("colour", "xyzzy", ["red", "green"])


def test_errors_are_also_the_builtin_kind():
    pairs = [
        (errors.ShapeError, ValueError),
        (errors.DTypeError, TypeError),
        (errors.BuildError, RuntimeError),
        (errors.CheckpointError, OSError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.GradientError, AssertionError),
    ]
    for error, builtin in pairs:
        assert issubclass(error, errors.NbnetError)
        assert issubclass(error, builtin)
