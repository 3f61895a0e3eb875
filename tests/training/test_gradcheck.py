"""gradcheck finds wrong gradients and names them."""

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import DTypeError, GradientError


class Cube(nb.Layer):
    """y = x^3, with a backward that can be made wrong at one place."""

    def __init__(self, wrong_at=None):
        super().__init__()
        self.wrong_at = wrong_at

    def forward(self, x, train=False):
        return x**3, x if train else None

    def backward(self, dy, saved, need_dx=True):
        dx = 3 * saved**2 * dy
        if self.wrong_at is not None:
            dx[self.wrong_at] *= 1.001
        return dx


def test_a_right_layer_passes(rng):
    assert nb.gradcheck(Cube(), rng.standard_normal((3, 4)))["x"] < 1e-8


def test_one_wrong_number_is_found_and_named(rng):
    x = rng.standard_normal((3, 4))
    x[2, 1] = 1.5
    with pytest.raises(GradientError, match=r"gradient of x\[2, 1\]: backward gives"):
        nb.gradcheck(Cube(wrong_at=(2, 1)), x)


def test_a_wrong_parameter_gradient_is_found(rng):
    class Forgetful(nb.Dense):
        def backward(self, dy, saved, need_dx=True):
            dx = super().backward(dy, saved, need_dx)
            self.params["bias"].grad[1] = 0
            return dx

    with pytest.raises(GradientError, match=r"gradient of bias\[1\]"):
        nb.gradcheck(Forgetful(3), rng.standard_normal((5, 2)))


def test_state_is_restored(rng):
    model = nb.Sequential([nb.BatchNorm(), nb.Dropout(0.5)])
    model.build((4,), backend="serial", dtype="float64")
    before = {name: array.copy() for name, array in model.state().items()}
    x = rng.standard_normal((6, 4))
    kept = x.copy()
    nb.gradcheck(model, x)
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    assert np.array_equal(x, kept)


def test_float32_is_refused():
    layer = nb.Dense(2)
    layer.build((3,), dtype="float32")
    with pytest.raises(DTypeError, match="dtype='float64'"):
        nb.gradcheck(layer, np.ones((2, 3)))


def test_statistics_stay_as_they_were_after_an_error(rng):
    layer = nb.BatchNorm()
    layer.build((2,), backend="serial", dtype="float64")
    before = {name: array.copy() for name, array in layer.buffers.items()}
    layer.backward = lambda dy, saved, need_dx=True: dy
    with pytest.raises(GradientError):
        nb.gradcheck(layer, rng.standard_normal((5, 2)))
    assert all(np.array_equal(before[name], array) for name, array in layer.buffers.items())


def test_errors_are_relative_to_the_largest_gradient(rng):
    """Of a gradient that is large, and wrong by 1 percent."""

    class Off(Cube):
        def backward(self, dy, saved, need_dx=True):
            return 1.01 * super().backward(dy, saved, need_dx)

    assert 0.0095 < nb.gradcheck(Off(), 100 * rng.standard_normal((3, 4)), tolerance=1)["x"] < 0.0105
