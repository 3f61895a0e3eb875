"""RMSProp and Adagrad."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.base import Groups, Optimizer, at_least_0, fraction, tiny


class RMSProp(Optimizer):
    """Gradients divided by a moving average of their size   (Tieleman and Hinton 2012, lecture 6.5, in PyTorch's form).

        g = grad + weight_decay * value
        s = rho * s + (1 - rho) * g^2
        v = momentum * v + g / (sqrt(s) + eps)     # Keras and TensorFlow: g / sqrt(s + eps)
        value -= lr * v

    Args:
        lr: learning rate, at least 0.
        rho: weight of the old average s, at least 0 and below 1.
        eps: at least 0; with 0, the quotient 0 / 0 of an element whose gradient has always been 0 is 0.
        momentum: weight of the old velocity v, at least 0 and below 1.
        weight_decay: at least 0.
        centered: whether s less the square of the average gradient is under the root: an estimate of the variance   (Graves 2013).
        decoupled: whether the decay is taken from the value, value *= 1 - lr * weight_decay, and not added to the gradient.
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    def __init__(
        self,
        lr: float = 1e-3,
        rho: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        centered: bool = False,
        decoupled: bool = False,
        groups: Groups = None,
    ) -> None:
        self.rho = fraction("rho", rho)
        self.eps = at_least_0("eps", eps)
        self.momentum = fraction("momentum", momentum)
        self.centered = bool(centered)
        self.decoupled = bool(decoupled)
        super().__init__(lr, weight_decay, groups)

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("square", "velocity", "mean") if self.centered else ("square", "velocity")

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        options = (lr, self.rho, self.eps or tiny(value.dtype), self.momentum, self.weight_decay, self.decoupled)
        return "optimizer.rmsprop_centered" if self.centered else "optimizer.rmsprop", (value, grad, *slots, *options)


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares   (Duchi, Hazan and Singer 2011, in PyTorch's form).

        g = grad + weight_decay * value
        s = s + g^2
        value -= lr * g / (sqrt(s + initial) + eps)     # Keras: g / sqrt(s + initial + eps), with initial = 0.1

    Args:
        lr: learning rate, at least 0.
        initial: at least 0.
        eps: at least 0; with 0, the quotient 0 / 0 of an element whose gradient has always been 0 is 0.
        weight_decay: at least 0.
        decoupled: whether the decay is taken from the value, value *= 1 - lr * weight_decay, and not added to the gradient.
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    slots = ("square",)

    def __init__(
        self,
        lr: float = 0.01,
        initial: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Groups = None,
    ) -> None:
        self.initial = at_least_0("initial", initial)
        self.eps = at_least_0("eps", eps)
        self.decoupled = bool(decoupled)
        super().__init__(lr, weight_decay, groups)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        options = (lr, self.initial, self.eps or tiny(value.dtype), self.weight_decay, self.decoupled)
        return "optimizer.adagrad", (value, grad, *slots, *options)
