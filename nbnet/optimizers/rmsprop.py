"""RMSProp."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.base import Optimizer, fraction, positive


class RMSProp(Optimizer):
    """Gradients divided by a moving average of their size   (Tieleman and Hinton 2012, lecture 6.5, in PyTorch's form).

        g = grad + weight_decay * value
        s = rho * s + (1 - rho) * g^2
        v = momentum * v + g / (sqrt(s) + eps)
        value -= lr * v

    Args:
        lr: learning rate, above 0.
        rho: weight of the old average s, at least 0 and below 1.
        eps: above 0.
        momentum: weight of the old velocity v, at least 0 and below 1.
        weight_decay: at least 0.
    """

    slots = ("square", "velocity")

    def __init__(self, lr: float = 1e-3, rho: float = 0.99, eps: float = 1e-8, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.rho = fraction("rho", rho)
        self.eps = positive("eps", eps)
        self.momentum = fraction("momentum", momentum)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        return "optimizer.rmsprop", (value, grad, *slots, lr, self.rho, self.eps, self.momentum, self.weight_decay)
