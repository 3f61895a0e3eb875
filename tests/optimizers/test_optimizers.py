"""Optimisers update all parameters that are neighbours in memory in one call, with the same bits as one by one."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.layers import Param
from nbnet.runtime.backend import get_backend

MAKERS = [lambda: nb.SGD(0.1, momentum=0.9), lambda: nb.RMSProp(0.01), lambda: nb.Adam(0.01), lambda: nb.AdamW(0.01)]
makers = pytest.mark.parametrize("make", MAKERS, ids=["sgd", "rmsprop", "adam", "adamw"])


def model():
    net = nb.Sequential([nb.Conv2D(3, 3), nb.BatchNorm(), nb.Flatten(), nb.Dense(5)])
    net.build((4, 4, 2), backend="serial", seed=1)
    return net


def apart(params):
    """The same parameters, each in memory of its own."""
    return {name: Param(param.value.copy()) for name, param in params.items()}


def calls(optimizer, params, monkeypatch):
    """How many kernel calls a step makes."""
    count = []
    update = type(optimizer)._update
    monkeypatch.setattr(type(optimizer), "_update", lambda self, *args: (count.append(1), update(self, *args)))
    optimizer.step(params, get_backend("serial"))
    return len(count)


@makers
def test_together_is_one_by_one(rng, make):
    params = model().params
    alone = apart(params)
    params["1.batchnorm.gamma"].trainable = alone["1.batchnorm.gamma"].trainable = False
    one, other = make(), make()
    for _ in range(3):
        for name, param in params.items():
            param.grad[:] = alone[name].grad[:] = rng.normal(size=param.grad.shape)
        one.step(params, get_backend("serial"))
        other.step(alone, get_backend("serial"))
    for name, param in params.items():
        assert_close(param.value, alone[name].value, "exact", what=name)
    for name, array in one.state.items():
        assert_close(array, other.state[name], "exact", what=name)


@makers
def test_a_model_is_one_call(make, monkeypatch):
    assert calls(make(), model().params, monkeypatch) == 1


def test_frozen_parameters_split_the_call(monkeypatch):
    net = model()
    net.params["1.batchnorm.gamma"].trainable = False
    assert calls(nb.Adam(), net.params, monkeypatch) == 2


def test_separate_parameters_are_separate_calls(monkeypatch):
    assert calls(nb.Adam(), apart(model().params), monkeypatch) == 6


def test_freezing_between_steps_is_noticed(rng):
    net, optimizer = model(), nb.SGD(1.0)
    for param in net.params.values():
        param.grad[:] = 1
    optimizer.step(net.params, net.backend)
    net.layers[1].trainable = False
    before = net.params["1.batchnorm.beta"].value.copy(), net.params["3.dense.bias"].value.copy()
    optimizer.step(net.params, net.backend)
    assert_close(net.params["1.batchnorm.beta"].value, before[0], "exact")
    assert_close(net.params["3.dense.bias"].value, before[1] - 1, "exact")


@pytest.mark.parametrize("backend", ["numpy", "serial"])
@pytest.mark.parametrize("inputs", [16, 8000])
def test_the_state_of_another_model_is_refused(backend, inputs):
    def trainer(inputs, units, optimizer):
        model = nb.Sequential([nb.Dense(units)])
        model.build((inputs,), backend=backend)
        return nb.Trainer(model, optimizer=optimizer)

    adam = nb.Adam(1e-3)
    trainer(8, 4, adam).train_batch(np.ones((4, 8), np.float32), np.arange(4))
    other = trainer(inputs, 4, adam)
    before = {name: array.copy() for name, array in other.model.state().items()}
    with pytest.raises(ArgumentError, match=r"state of shape \(8, 4\) for '0.dense.weight', expected shape \(\d+, 4\): .* make a new Adam"):
        other.train_batch(np.ones((4, inputs), np.float32), np.arange(4))
    assert adam.steps == 1
    assert all(np.array_equal(before[name], array) for name, array in other.model.state().items())
    other.model = nb.Sequential([nb.Dense(4), nb.Dense(4)])
    other.model.build((8,), backend=backend)
    with pytest.raises(ArgumentError, match=r"no state for '1.dense.weight'"):
        other.train_batch(np.ones((4, 8), np.float32), np.arange(4))
