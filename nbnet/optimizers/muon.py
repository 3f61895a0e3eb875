"""Muon."""

from __future__ import annotations

import math
from typing import Any

from nbnet.functional import checks
from nbnet.optimizers.adam import Moments
from nbnet.optimizers.base import Groups, at_least_0, fraction
from nbnet.optimizers.matrices import add_scaled, orthogonalized
from nbnet.runtime.backend import Backend


class Muon(Moments):
    """Momentum whose step is made orthogonal, for matrices; AdamW for all else   (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    For weights (I, O) of dense layers and (KH, KW, I, O) of convolutions, as matrices (KH * KW * I, O):

        m = momentum * m + grad
        d = orthogonalized(grad + momentum * m)               # nesterov; else of m. Newton-Schulz, five iterations
        value *= 1 - lr * weight_decay
        value -= lr * sqrt(max(1, O / I)) * d

    PyTorch's Muon computes the iterations in bfloat16; here they have the dtype of the parameter. All other parameters (biases, gamma,
    beta, depthwise weights) take AdamW's step with the learning rate lr * adam_scale, beta1, beta2 and eps. The author advises AdamW for
    the first and the last layer too: groups={"0.conv2d": {"adam": True}, "9.dense": {"adam": True}}.

    Args:
        lr: learning rate, at least 0.
        momentum: weight of the old velocity, at least 0 and below 1.
        nesterov: whether to look one step ahead.
        weight_decay: at least 0, decoupled.
        iterations: of Newton-Schulz, at least 1.
        adam: True gives matrices AdamW's step too; for groups.
        adam_scale: AdamW's learning rate as a share of lr, at least 0. The author's are 3e-4 and 0.02.
        beta1, beta2, eps: of AdamW.
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    by_parameter = True
    decoupled = True

    def __init__(
        self,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        iterations: int = 5,
        adam: bool = False,
        adam_scale: float = 0.015,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-10,
        groups: Groups = None,
    ) -> None:
        self.momentum = fraction("momentum", momentum)
        self.nesterov = bool(nesterov)
        self.iterations = checks.whole(iterations, "iterations")
        self.adam = bool(adam)
        self.adam_scale = at_least_0("adam_scale", adam_scale)
        super().__init__(lr, beta1, beta2, eps, weight_decay, groups)

    def _update(self, backend: Backend, value: Any, grad: Any, slots: list[Any], lr: float) -> None:
        m, v = (slot.reshape(-1) for slot in slots)
        if self.adam or len(value.shape) not in (2, 4):
            options = self._options(lr * self.adam_scale, value.dtype)
            backend.kernel("optimizer.adam")(value.reshape(-1), grad.reshape(-1), m, v, *options, *self._corrections(self.steps))
            return
        columns = value.shape[-1]
        rows = value.size // columns
        step = backend.zeros((value.size,), value.dtype)
        backend.kernel("optimizer.sgd")(step, grad.reshape(-1), m, -1.0, self.momentum, 0.0, self.nesterov, 0.0, False)
        direction = orthogonalized(backend, step.reshape(rows, columns), self.iterations)
        if self.weight_decay:
            backend.kernel("array.scale")(value.reshape(-1), 1 - lr * self.weight_decay, value.reshape(-1))
        add_scaled(backend, value, direction, -lr * math.sqrt(max(1.0, columns / rows)))
