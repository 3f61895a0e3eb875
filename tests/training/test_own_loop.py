"""A training loop of your own: forward, a loss, backward, step."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb

from .small import bits, small_model, small_trainer

LOSS = nb.losses.softmax_cross_entropy


def plain_model():
    """Without what depends on the rest of the batch, or on chance."""
    model = nb.Sequential([nb.Conv2D(4, 3), nb.Tanh(), nb.Flatten(), nb.Dense(3)])
    model.build((6, 6, 1), backend="serial", dtype="float64", seed=0)
    return model


def gradients(model, x, y, rows=None, need_dx=True):
    """Those of the parameters, as backward leaves them, and dx."""
    prediction, tape = model.forward(x, train=True)
    dx = model.backward(LOSS(prediction, y, rows=rows, backend=model.backend).gradient, tape, need_dx)
    return [param.grad.copy() for param in model.params.values()], dx


@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_it_has_the_bits_of_the_trainer(data, backend):
    x, y = data
    trainer, own = small_trainer(backend), small_trainer(backend)
    for start in range(0, 60, 20):
        rows = slice(start, start + 20)
        trainer.train_batch(x[rows], y[rows])
        gradients(own.model, x[rows], y[rows])
        own.optimizer.step(own.model.params, own.model.backend)
    assert bits(own) == bits(trainer)


def test_dx_costs_nothing_else(data):
    x, y = data
    with_dx, without = gradients(small_model(), x, y), gradients(small_model(), x, y, need_dx=False)
    assert with_dx[1].shape == x.shape
    assert with_dx[1].any()
    assert without[1] is None
    for one, other in zip(with_dx[0], without[0]):
        assert one.tobytes() == other.tobytes()


def test_gradients_are_overwritten_and_can_be_added(data):
    x, y = data
    model = plain_model()
    whole, dx = gradients(model, x, y)
    parts = [gradients(model, x[rows], y[rows], rows=len(x)) for rows in (slice(40), slice(40, None))]
    for wanted, one, other in zip(whole, parts[0][0], parts[1][0]):
        assert_close(one + other, wanted, "reduction")
    assert_close(np.concatenate([part[1] for part in parts]), dx, "reduction")


def test_a_frozen_model_has_the_gradient_of_predict(data):
    """Batch norm by its moving statistics: each row has a gradient of its own, and nothing changes."""
    x, _ = data
    trainer = small_trainer()
    trainer.train_batch(*data)
    model = trainer.model[:-2]  # without dropout
    nb.freeze(model)
    before = bits(trainer)
    y, tape = model.forward(x, train=True)
    assert_close(y, model.predict(x), "reduction")
    dy = np.random.default_rng(0).normal(size=y.shape)
    dx = model.backward(dy, tape)
    _, tape = model.forward(x[:1], train=True)
    assert_close(model.backward(dy[:1], tape), dx[:1], "reduction")
    assert bits(trainer) == before
