"""Each optimiser with all of its options against its formula, written out, over several steps."""

import inspect

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.optimizers import OPTIMIZERS

STEPS = 5
MOMENTS = {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}
BETAS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
RMSPROP = {"rho": 0.8, "eps": 0.05, "momentum": 0.6, "weight_decay": 0.3}


def decayed(value, grad, rate, weight_decay, decoupled):
    """The value and the gradient of a step."""
    return (value * (1 - rate * weight_decay), grad) if decoupled else (value, grad + weight_decay * value)


def sgd(value, grads, lr, momentum, nesterov, weight_decay, dampening=0.0, decoupled=False):
    v = np.zeros_like(value)
    for t, (rate, grad) in enumerate(zip(lr, grads)):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        v = momentum * v + (1 - dampening if t else 1) * g
        value = value - rate * (g + momentum * v if nesterov else v)
    return value


def rmsprop(value, grads, lr, rho, eps, momentum, weight_decay, centered=False, decoupled=False):
    s = v = a = np.zeros_like(value)
    for rate, grad in zip(lr, grads):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        s = rho * s + (1 - rho) * g**2
        a = rho * a + (1 - rho) * g
        v = momentum * v + g / (np.sqrt(s - a**2 if centered else s) + eps)
        value = value - rate * v
    return value


def adagrad(value, grads, lr, initial, eps, weight_decay, decoupled=False):
    s = np.zeros_like(value)
    for rate, grad in zip(lr, grads):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        s = s + g**2
        value = value - rate * g / (np.sqrt(s + initial) + eps)
    return value


def adam(value, grads, lr, beta1, beta2, eps, weight_decay, amsgrad=False, decoupled=False):
    m = v = largest = np.zeros_like(value)
    for t, (rate, grad) in enumerate(zip(lr, grads), start=1):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        largest = np.maximum(largest, v)
        value = value - rate * m / (1 - beta1**t) / (np.sqrt((largest if amsgrad else v) / (1 - beta2**t)) + eps)
    return value


def nadam(value, grads, lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled=False):
    m = v = np.zeros_like(value)
    mu = [beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in range(1, len(grads) + 2)]
    for t, (rate, grad) in enumerate(zip(lr, grads), start=1):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        ahead = (1 - mu[t - 1]) * g / (1 - np.prod(mu[:t])) + mu[t] * m / (1 - np.prod(mu[: t + 1]))
        value = value - rate * ahead / (np.sqrt(v / (1 - beta2**t)) + eps)
    return value


def radam(value, grads, lr, beta1, beta2, eps, weight_decay, decoupled=False):
    m = v = np.zeros_like(value)
    most = 2 / (1 - beta2) - 1
    for t, (rate, grad) in enumerate(zip(lr, grads), start=1):
        value, g = decayed(value, grad, rate, weight_decay, decoupled)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        length, size = most - 2 * t * beta2**t / (1 - beta2**t), 1
        if length > 5:
            r = np.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
            size = r * np.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
        value = value - rate * m / (1 - beta1**t) * size
    return value


def lion(value, grads, lr, beta1, beta2, weight_decay):
    m = np.zeros_like(value)
    for rate, grad in zip(lr, grads):
        value = value * (1 - rate * weight_decay) - rate * np.sign(beta1 * m + (1 - beta1) * grad)
        m = beta2 * m + (1 - beta2) * grad
    return value


def lamb(value, grads, lr, beta1, beta2, eps, weight_decay):
    m = v = np.zeros_like(value)
    for t, (rate, grad) in enumerate(zip(lr, grads), start=1):
        m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * value
        sizes = np.linalg.norm(value), np.linalg.norm(u)
        value = value - rate * (sizes[0] / sizes[1] if all(sizes) else 1) * u
    return value


def muon(value, grads, lr, momentum, nesterov, weight_decay, iterations=5, adam=False, scale=0.015, beta1=0.9, beta2=0.95, eps=1e-10):
    if adam or value.ndim not in (2, 4):
        return as_adamw(value, grads, [rate * scale for rate in lr], beta1, beta2, eps, weight_decay)
    m, shape = np.zeros_like(value), (-1, value.shape[-1])
    for rate, grad in zip(lr, grads):
        m = momentum * m + grad
        x = (grad + momentum * m if nesterov else m).reshape(shape)
        x = x / np.linalg.norm(x)
        for _ in range(iterations):
            s = x @ x.T
            x = 3.4445 * x - 4.7750 * s @ x + 2.0315 * s @ s @ x
        size = np.sqrt(max(1, x.shape[1] / x.shape[0]))
        value = value * (1 - rate * weight_decay) - rate * size * x.reshape(value.shape)
    return value


def as_adamw(*args):
    return adam(*args, decoupled=True)


CASES = {
    "sgd": (nb.SGD, sgd, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
    "sgd, momentum and decay": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": False, "weight_decay": 0.3}),
    "sgd, nesterov": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.3}),
    "rmsprop": (nb.RMSProp, rmsprop, {"rho": 0.8, "eps": 0.05, "momentum": 0.6, "weight_decay": 0.3}),
    "rmsprop, bounds": (nb.RMSProp, rmsprop, {"rho": 0.0, "eps": 0.05, "momentum": 0.0, "weight_decay": 0.0}),
    "adam": (nb.Adam, adam, {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}),
    "adam, bounds": (nb.Adam, adam, {"beta1": 0.0, "beta2": 0.0, "eps": 0.05, "weight_decay": 0.0}),
    "adam, amsgrad": (nb.Adam, adam, MOMENTS | {"amsgrad": True}),
    "adamw": (nb.AdamW, as_adamw, {"beta1": 0.6, "beta2": 0.8, "eps": 0.05, "weight_decay": 0.3}),
    "adamw, amsgrad": (nb.AdamW, as_adamw, MOMENTS | {"amsgrad": True}),
    "sgd, dampening": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": False, "weight_decay": 0.3, "dampening": 0.4}),
    "sgd, decoupled": (nb.SGD, sgd, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.3, "dampening": 0.0, "decoupled": True}),
    "rmsprop, centered": (nb.RMSProp, rmsprop, RMSPROP | {"centered": True}),
    "rmsprop, decoupled": (nb.RMSProp, rmsprop, RMSPROP | {"centered": False, "decoupled": True}),
    "rmsprop, both": (nb.RMSProp, rmsprop, RMSPROP | {"centered": True, "decoupled": True}),
    "adagrad": (nb.Adagrad, adagrad, {"initial": 0.0, "eps": 0.05, "weight_decay": 0.3}),
    "adagrad, decoupled": (nb.Adagrad, adagrad, {"initial": 0.2, "eps": 0.0, "weight_decay": 0.3, "decoupled": True}),
    "nadam": (nb.NAdam, nadam, MOMENTS | {"momentum_decay": 0.1}),
    "nadam, decoupled": (nb.NAdam, nadam, MOMENTS | {"momentum_decay": 1.0, "decoupled": True}),
    "radam": (nb.RAdam, radam, MOMENTS | {"beta2": 0.9}),
    "radam, never rectified": (nb.RAdam, radam, MOMENTS),
    "radam, decoupled": (nb.RAdam, radam, MOMENTS | {"beta2": 0.9, "decoupled": True}),
    "lion": (nb.Lion, lion, {"beta1": 0.6, "beta2": 0.8, "weight_decay": 0.3}),
    "lamb": (nb.LAMB, lamb, MOMENTS),
    "lamb, no decay": (nb.LAMB, lamb, MOMENTS | {"weight_decay": 0.0}),
    "muon": (nb.Muon, muon, {"momentum": 0.7, "nesterov": True, "weight_decay": 0.3}),
    "muon, plain": (nb.Muon, muon, {"momentum": 0.7, "nesterov": False, "weight_decay": 0.0, "iterations": 2}),
    "muon, adam": (
        nb.Muon,
        muon,
        {"momentum": 0.7, "nesterov": False, "weight_decay": 0.3, "iterations": 5, "adam": True, "adam_scale": 0.5} | BETAS,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])
def test_steps_are_the_formula(rng, case, backend):
    """By position and by name; each step has a rate of its own, and None is the optimiser's."""
    make, formula, options = CASES[case]
    rates = [0.1, 0.0, 0.2, None, 0.05]
    for optimizer in (make(0.3, **options), make(0.3, *options.values())):
        model = nb.Sequential([nb.Conv2D(3, (2, 1)), nb.Flatten(), nb.Dense(2)])
        model.build((2, 1, 4), backend=backend, dtype="float64")
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


COMMON = {"weight_decay": 0.0, "groups": {}}
DEFAULTS = {
    "sgd": {"lr": 0.01, "momentum": 0.0, "nesterov": False, "dampening": 0.0, "decoupled": False},
    "rmsprop": {"lr": 1e-3, "rho": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False, "decoupled": False},
    "adagrad": {"lr": 0.01, "initial": 0.0, "eps": 1e-10, "decoupled": False},
    "adam": {"lr": 1e-3, "amsgrad": False} | BETAS,
    "adamw": {"lr": 1e-3, "amsgrad": False, "weight_decay": 0.01} | BETAS,
    "nadam": {"lr": 2e-3, "momentum_decay": 0.004, "decoupled": False} | BETAS,
    "radam": {"lr": 1e-3, "decoupled": False} | BETAS,
    "lion": {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99},
    "lamb": {"lr": 1e-3, "weight_decay": 0.01} | BETAS | {"eps": 1e-6},
    "muon": {"lr": 0.02, "momentum": 0.95, "nesterov": True, "iterations": 5, "adam": False, "adam_scale": 0.015}
    | {"beta1": 0.9, "beta2": 0.95, "eps": 1e-10},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults(name):
    """They are part of the API: a run with them must stay the same."""
    optimizer = nb.optimizers.get(name)
    wanted = COMMON | DEFAULTS[name]
    assert {option: getattr(optimizer, option) for option in inspect.signature(type(optimizer)).parameters} == wanted
    assert optimizer.options == wanted
    assert optimizer.steps == 0
