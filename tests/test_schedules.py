"""Schedules of the learning rate."""

import math
import re

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import schedules
from nbnet.errors import ArgumentError


def test_schedules_at_their_corners():
    corners = {
        "constant": [1, 1, 1],
        "cosine": [1, 0.5, 0],
        "one_cycle": [1 / 25, (1 + math.cos(math.pi * 2 / 7)) / 2, 1e-4 / 25],
    }
    for name, expected in corners.items():
        schedule = schedules.get(name)
        values = [schedule(progress) for progress in (0, 0.5, 1)]
        assert abs(np.array(values) - expected).max() < 1e-4, name
    assert_close(np.array(schedules.one_cycle()(0.3)), 1.0, "elementwise")
    assert [schedules.step((0.5,), 0.1)(p) for p in (0, 0.49, 0.5, 1)] == [1, 1, 0.1, 0.1]
    ramp = schedules.warm_up(0.2, schedules.cosine())
    assert (ramp(0), ramp(0.1), ramp(0.2)) == (0, 0.5, 1)
    assert_close(np.array(ramp(0.6)), 0.5, "elementwise")


def half_cosine(first, last, share):
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


# schedule: values at progress
TABLE = {
    "constant": (schedules.constant(), {0: 1, 0.3: 1, 1: 1}),
    "cosine": (schedules.cosine(), {0: 1, 0.25: half_cosine(1, 0, 0.25), 1: 0}),
    "cosine to 0.2": (schedules.cosine(0.2), {0: 1, 0.25: half_cosine(1, 0.2, 0.25), 0.5: 0.6, 1: 0.2}),
    "step": (schedules.step(), {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1: 0.01}),
    "step in any order": (schedules.step((0.75, 0.5, 0.25), 0.5), {0: 1, 0.25: 0.5, 0.6: 0.25, 0.9: 0.125}),
    "step of none": (schedules.step(()), {0: 1, 1: 1}),
    "one_cycle": (
        schedules.one_cycle(),
        {0: 0.04, 0.15: half_cosine(0.04, 1, 0.5), 0.3: 1, 0.65: half_cosine(1, 0.04e-4, 0.5), 1: 0.04e-4},
    ),
    "one_cycle with options": (
        schedules.one_cycle(0.5, 0.25, 0.5),
        {0: 0.25, 0.25: 0.625, 0.5: 1, 0.625: half_cosine(1, 0.125, 0.25), 0.75: 0.5625, 1: 0.125},
    ),
    "warm_up": (schedules.warm_up(), {0: 0, 0.025: 0.5, 0.05: 1, 0.5: 1, 1: 1}),
    "warm_up, then cosine": (schedules.warm_up(0.5, schedules.cosine()), {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
}

TABLE |= {
    "cosine_restarts": (
        schedules.cosine_restarts(),
        {0: 1, 1 / 6: 0.5, 0.33: half_cosine(1, 0, 0.99), 0.334: half_cosine(1, 0, 0.002), 0.5: 0.5, 5 / 6: 0.5, 1: 0},
    ),
    "cosine_restarts with options": (
        schedules.cosine_restarts(2, 2.0, 0.5, 0.2),
        {0: 1, 1 / 6: 0.6, 0.3: half_cosine(1, 0.2, 0.9), 0.4: half_cosine(0.5, 0.1, 0.1), 2 / 3: 0.3, 1: 0.1},
    ),
    "one cosine": (schedules.cosine_restarts(1, final=0.2), {0: 1, 0.25: half_cosine(1, 0.2, 0.25), 1: 0.2}),
    "polynomial": (schedules.polynomial(), {0: 1, 0.3: 0.7, 1: 0}),
    "polynomial with options": (schedules.polynomial(2, 0.2), {0: 1, 0.5: 0.4, 0.75: 0.25, 1: 0.2}),
    "triangular": (schedules.triangular(), {0: 0.1, 0.25: 0.55, 0.5: 1, 0.75: 0.55, 1: 0.1}),
    "triangular with options": (schedules.triangular(2, 0.0, 0.5), {0: 0, 0.25: 1, 0.375: 0.5, 0.5: 0, 0.625: 0.25, 0.75: 0.5, 1: 0}),
    "piecewise": (schedules.piecewise(), {0: 0, 0.15: 0.5, 0.3: 1, 0.65: 0.5, 1: 0}),
    "piecewise with a jump": (
        schedules.piecewise([(0.2, 1), (0.5, 2), (0.5, 0.5), (0.8, 0.1)]),
        {0: 1, 0.2: 1, 0.35: 1.5, 0.5: 0.5, 0.65: 0.3, 0.8: 0.1, 1: 0.1},
    ),
    "piecewise of one": (schedules.piecewise(((0.5, 0.25),)), {0: 0.25, 0.5: 0.25, 1: 0.25}),
}


@pytest.mark.parametrize("name", TABLE)
def test_values(name):
    schedule, wanted = TABLE[name]
    assert_close(np.array([schedule(progress) for progress in wanted]), np.array([*wanted.values()], float), "elementwise")


def test_names_are_the_defaults():
    assert set(schedules.SCHEDULES) == {
        *("constant", "cosine", "step", "one_cycle", "warm_up", "cosine_restarts", "polynomial", "triangular", "piecewise")
    }
    for name, make in schedules.SCHEDULES.items():
        assert make is getattr(schedules, name)
        assert [schedules.get(name)(p) for p in (0, 0.4, 0.6, 1)] == [make()(p) for p in (0, 0.4, 0.6, 1)]
    assert schedules.get(None)(0.7) == 1
    assert schedules.get(math.sqrt) is math.sqrt


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.nan, "0.5", None, True])
def test_fractions_lie_between_0_and_1(value):
    for make in (schedules.one_cycle, schedules.warm_up, lambda value: schedules.step((0.5, value))):
        with pytest.raises(ArgumentError, match="a fraction of training between 0 and 1, both excluded"):
            make(value)


def test_bad_schedules():
    with pytest.raises(ArgumentError, match="did you mean 'cosine'"):
        schedules.get("cosin")
    with pytest.raises(ArgumentError, match=r"warm=1\.5"):
        schedules.one_cycle(warm=1.5)


BAD = {
    "cycles=0: expected a whole number, at least 1": lambda: schedules.cosine_restarts(0),
    "growth=0: expected a number above 0": lambda: schedules.cosine_restarts(growth=0),
    "decay='1': expected a number above 0": lambda: schedules.cosine_restarts(decay="1"),
    "power=-1: expected a number above 0": lambda: schedules.polynomial(-1),
    "cycles=1.5: expected a whole number, at least 1": lambda: schedules.triangular(1.5),
    "decay=nan: expected a number above 0": lambda: schedules.triangular(decay=math.nan),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_options(message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        BAD[message]()


@pytest.mark.parametrize(
    "points", [(), None, 0.5, "ab", [(0, 1, 2)], [0, 1], [(0, "1")], [(0.5, 1), (0.2, 1)], [(math.nan, 1)], [(0, math.inf)]]
)
def test_bad_points(points):
    with pytest.raises(
        ArgumentError, match=r"^points=.*: expected pairs \(progress, factor\) in order of progress, such as \(\(0, 1\), \(1, 0\.1\)\)$"
    ):
        schedules.piecewise(points)
