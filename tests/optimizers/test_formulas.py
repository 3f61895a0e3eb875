"""Each optimiser with all of its options against its formula, written out, over several steps."""

import inspect

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.optimizers import OPTIMIZERS

STEPS = 5


def sgd(value, grads, lr, momentum, nesterov, weight_decay):
    v = np.zeros_like(value)
    for rate, grad in zip(lr, grads):
        g = grad + weight_decay * value
        v = momentum * v + g
        value = value - rate * (g + momentum * v if nesterov else v)
    return value


def rmsprop(value, grads, lr, rho, eps, momentum, weight_decay):
    s = v = np.zeros_like(value)
    for rate, grad in zip(lr, grads):
        g = grad + weight_decay * value
        s = rho * s + (1 - rho) * g**2
        v = momentum * v + g / (np.sqrt(s) + eps)
        value = value - rate * v
    return value


def adam(value, grads, lr, beta1, beta2, eps, weight_decay, decoupled=False):
    m = v = np.zeros_like(value)
    for t, (rate, grad) in enumerate(zip(lr, grads), start=1):
        value, g = (value * (1 - rate * weight_decay), grad) if decoupled else (value, grad + weight_decay * value)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        value = value - rate * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return value


CASES = {
    "sgd": (nb.SGD, sgd, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
    "sgd, momentum and decay": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": False, "weight_decay": 0.3}),
    "sgd, nesterov": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.3}),
    "rmsprop": (nb.RMSProp, rmsprop, {"rho": 0.8, "eps": 0.05, "momentum": 0.6, "weight_decay": 0.3}),
    "rmsprop, bounds": (nb.RMSProp, rmsprop, {"rho": 0.0, "eps": 0.05, "momentum": 0.0, "weight_decay": 0.0}),
    "adam": (nb.Adam, adam, {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}),
    "adam, bounds": (nb.Adam, adam, {"beta1": 0.0, "beta2": 0.0, "eps": 0.05, "weight_decay": 0.0}),
    "adamw": (nb.AdamW, lambda *args: adam(*args, decoupled=True), {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_steps_are_the_formula(rng, case, backend):
    """By position and by name; each step has a rate of its own, and None is the optimiser's."""
    make, formula, options = CASES[case]
    rates = [0.1, 0.0, 0.2, None, 0.05]
    for optimizer in (make(0.3, **options), make(0.3, *options.values())):
        model = nb.Sequential([nb.Dense(3), nb.Dense(2)])
        model.build((4,), backend=backend, dtype="float64")
        grads = {name: [rng.normal(0, 2, param.value.shape) for _ in range(STEPS)] for name, param in model.params.items()}
        before = {name: param.value.copy() for name, param in model.params.items()}
        for step, rate in enumerate(rates):
            for name, param in model.params.items():
                param.grad[:] = grads[name][step]
            optimizer.step(model.params, model.backend, rate)
        assert optimizer.steps == STEPS
        for name, param in model.params.items():
            wanted = formula(before[name], grads[name], [0.3 if rate is None else rate for rate in rates], *options.values())
            assert_close(param.value, wanted, "reduction")


DEFAULTS = {
    "sgd": {"lr": 0.01, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    "rmsprop": {"lr": 1e-3, "rho": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
    "adam": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults(name):
    """They are part of the API: a run with them must stay the same."""
    optimizer = nb.optimizers.get(name)
    assert {option: getattr(optimizer, option) for option in inspect.signature(type(optimizer)).parameters} == DEFAULTS[name]
    assert optimizer.options == DEFAULTS[name]
    assert optimizer.steps == 0
