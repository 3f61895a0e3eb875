"""Optimisers: they own the state arrays and change parameters in place, in one kernel call for all that lie together in memory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.layers.base import Param, Slab, flat_zeros, slab_of
from nbnet.runtime.backend import Backend, zeros_like


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
        self._whole: list[Any] = []  # on the GPU: each slot's arrays in one
        self._runs: list[list[np.ndarray]] = []
        self._runs_of: list[Any] = []  # the arrays themselves: the id of one that is gone may be another's

    def prepare(self, params: Mapping[str, Param]) -> None:
        """Make the state arrays, as zeros, if there are none."""
        if self.state or not params:
            return
        slab = slab_of(params)
        if slab is not None:
            self._slab, self._whole = slab, [zeros_like(slab.value) for _ in self.slots]
            for slot, whole in zip(self.slots, self._whole):
                self.state |= {f"{slot}.{name}": array for name, array in zip(params, slab.views(whole))}
            return
        dtype = next(iter(params.values())).value.dtype
        for slot in self.slots:
            arrays = flat_zeros((param.value.shape for param in params.values()), dtype)
            self.state |= {f"{slot}.{name}": array for name, array in zip(params, arrays)}

    def step(self, params: Mapping[str, Param], backend: Backend, lr: float | None = None) -> None:
        """Update every trainable parameter from its gradient, once.

        Args:
            params: by name, as model.params gives them. lr: of this step; None means the optimiser's own.
        Raises:
            ArgumentError: the state is that of other parameters; nothing has changed.
        """
        self.prepare(params)
        lr = self.lr if lr is None else lr
        if self._slab is not None:
            self._step_on_gpu(params, backend, lr)
            return
        trainable = {name: param for name, param in params.items() if param.trainable}
        arrays = [array for param in trainable.values() for array in (param.value, param.grad)]
        if len(arrays) != len(self._runs_of) or not all(map(is_, arrays, self._runs_of)):
            self._check_state(params)
            columns = [[param.value for param in trainable.values()], [param.grad for param in trainable.values()]]
            columns += [[self.state[f"{slot}.{name}"] for name in trainable] for slot in self.slots]
            self._runs = _runs(columns)
            self._runs_of = arrays
        self.steps += 1
        for value, grad, *slots in self._runs:
            self._update(backend, value, grad, slots, lr)

    def _check_state(self, params: Mapping[str, Param]) -> None:
        """The state must be that of these parameters: kernels walk over both as one."""
        for slot, (name, param) in itertools.product(self.slots, params.items()):
            found = self.state.get(f"{slot}.{name}")
            if found is None or found.shape != param.value.shape:
                known = "no state" if found is None else f"state of shape {found.shape}"
                raise ArgumentError(
                    f"this optimiser has {known} for {name!r}, which has shape {param.value.shape}: "
                    f"it belongs to another model, make a new {type(self).__name__} for this one"
                )

    def _step_on_gpu(self, params: Mapping[str, Param], backend: Backend, lr: float) -> None:
        """One launch for all parameters, or one for each where some are frozen."""
        if self._slab is slab_of(params) and all(param.trainable for param in params.values()):
            assert self._slab is not None
            self.steps += 1
            self._update(backend, self._slab.value, self._slab.grad, self._whole, lr)
            return
        self._check_state(params)
        self.steps += 1
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


def _runs(columns: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Flat arrays, one a column, that together hold the arrays of the columns (values, gradients, slots): neighbours are joined."""
    runs: list[list[tuple[np.ndarray, ...]]] = []  # the first and the last row of each
    for row in zip(*columns):
        gaps = {_gap(before, array) for before, array in zip(runs[-1][1], row)} if runs else {None}
        if len(gaps) == 1 and None not in gaps:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    return [[_span(first, last) for first, last in zip(*run)] for run in runs]


def _gap(before: np.ndarray, array: np.ndarray) -> int | None:
    """Bytes between two arrays, if they are neighbours in a buffer of flat_zeros."""
    if array.base is None or array.base is not before.base or array.base.ndim != 1 or array.ctypes.data % 64:
        return None
    gap = array.ctypes.data - before.ctypes.data - before.nbytes
    return gap if 0 <= gap < 64 else None


def _span(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The buffer from the start of one array to the end of another, flat."""
    if first is last or first.base is None:
        return first.reshape(-1)
    start, stop = (array.ctypes.data - first.base.ctypes.data for array in (first, last))
    return first.base[start // first.itemsize : (stop + last.nbytes) // first.itemsize]


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
