"""Optimisers: they own the state arrays and change parameters in place, one kernel call a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nbnet.backend import Backend, zeros_like
from nbnet.errors import ArgumentError
from nbnet.layers.base import Param, Slab, slab_of


class Optimizer:
    """Base of optimisers.

    Args:
        lr: learning rate; a schedule multiplies it.
        weight_decay: added to the gradient as weight_decay * value (AdamW: taken from the value apart from the gradient).
    `state` maps slot and parameter ("m.0.conv2d.weight") to an array; `steps` counts updates. Both are saved in checkpoints.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr = _positive("lr", lr)
        self.weight_decay = _at_least_0("weight_decay", weight_decay)
        self.steps = 0
        self.state: dict[str, Any] = {}
        self._slab: Slab | None = None
        self._whole: dict[str, Any] = {}  # on the GPU: all of a slot's arrays in one

    def prepare(self, params: Mapping[str, Param]) -> None:
        """Make the state arrays that are missing, as zeros."""
        slab = slab_of(params)
        for slot in self.slots:
            names = {f"{slot}.{name}": param for name, param in params.items()}
            if slab is not None and not names.keys() & self.state.keys():
                self._slab, self._whole[slot] = slab, zeros_like(slab.value)
                self.state.update(zip(names, slab.views(self._whole[slot])))
            for name, param in names.items():
                if name not in self.state:
                    self.state[name] = zeros_like(param.value)

    def step(self, params: Mapping[str, Param], backend: Backend, lr: float | None = None) -> None:
        """Update every trainable parameter from its gradient, once.

        Args:
            params: by name, as model.params gives them. lr: of this step; None means the optimiser's own.
        """
        if not self.state:
            self.prepare(params)
        self.steps += 1
        lr = self.lr if lr is None else lr
        if self._slab is not None and self._slab is slab_of(params) and all(param.trainable for param in params.values()):
            self._update(backend, self._slab.value, self._slab.grad, [self._whole[slot] for slot in self.slots], lr)
            return
        for name, param in params.items():
            if param.trainable:
                slots = [self.state[f"{slot}.{name}"].reshape(-1) for slot in self.slots]
                self._update(backend, param.value.reshape(-1), param.grad.reshape(-1), slots, lr)

    def _update(self, backend: Backend, value: np.ndarray, grad: np.ndarray, slots: list[np.ndarray], lr: float) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    """v = momentum * v + g;  value -= lr * v, or with nesterov lr * (g + momentum * v)   (Sutskever et al. 2013, PyTorch's form)."""

    slots = ("velocity",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = _fraction("momentum", momentum)
        self.nesterov = bool(nesterov)

    def _update(self, backend, value, grad, slots, lr):
        backend.kernel("optimizer.sgd")(value, grad, *slots, lr, self.momentum, self.nesterov, self.weight_decay)


class RMSProp(Optimizer):
    """s = rho * s + (1 - rho) * g^2;  v = momentum * v + g / (sqrt(s) + eps);  value -= lr * v   (Tieleman and Hinton 2012)."""

    slots = ("square", "velocity")

    def __init__(self, lr: float = 1e-3, rho: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.rho = _fraction("rho", rho)
        self.eps = _positive("eps", eps)
        self.momentum = _fraction("momentum", momentum)

    def _update(self, backend, value, grad, slots, lr):
        backend.kernel("optimizer.rmsprop")(value, grad, *slots, lr, self.rho, self.eps, self.momentum, self.weight_decay)


class Adam(Optimizer):
    """m and v average g and g^2; value -= lr * m_hat / (sqrt(v_hat) + eps)   (Kingma and Ba 2015)."""

    slots = ("m", "v")
    decoupled = False

    def __init__(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.beta1 = _fraction("beta1", beta1)
        self.beta2 = _fraction("beta2", beta2)
        self.eps = _positive("eps", eps)

    def _update(self, backend, value, grad, slots, lr):
        corrections = 1 - self.beta1**self.steps, 1 - self.beta2**self.steps
        options = (lr, self.beta1, self.beta2, self.eps, self.weight_decay, self.decoupled)
        backend.kernel("optimizer.adam")(value, grad, *slots, *options, *corrections)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: value *= 1 - lr * weight_decay first   (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ArgumentError(f"{name}={value!r}: wanted a number above 0")
    return float(value)


def _at_least_0(name: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise ArgumentError(f"{name}={value!r}: wanted a number that is at least 0")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ArgumentError(f"{name}={value!r}: wanted at least 0 and less than 1")
    return float(value)
