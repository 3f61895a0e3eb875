"""Schedules of the learning rate."""

import math

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


def test_bad_schedules():
    with pytest.raises(ArgumentError, match="did you mean 'cosine'"):
        schedules.get("cosin")
    with pytest.raises(ArgumentError, match=r"warm=1\.5"):
        schedules.one_cycle(warm=1.5)
