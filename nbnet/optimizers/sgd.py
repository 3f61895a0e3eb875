"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.base import Optimizer, fraction


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for   (Sutskever, Martens, Dahl and Hinton 2013, in PyTorch's form).

        g = grad + weight_decay * value
        v = momentum * v + g
        value -= lr * v                      # nesterov: lr * (g + momentum * v)

    Args:
        lr: learning rate, above 0.
        momentum: weight of the old velocity, at least 0 and below 1.
        nesterov: whether to look one step ahead.
        weight_decay: at least 0.
    """

    slots = ("velocity",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = fraction("momentum", momentum)
        self.nesterov = bool(nesterov)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        return "optimizer.sgd", (value, grad, *slots, lr, self.momentum, self.nesterov, self.weight_decay)
