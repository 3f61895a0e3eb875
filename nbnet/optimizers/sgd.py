"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ArgumentError
from nbnet.optimizers.base import Groups, Optimizer, fraction


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for   (Sutskever, Martens, Dahl and Hinton 2013, in PyTorch's form).

        g = grad + weight_decay * value
        v = momentum * v + (1 - dampening) * g     # v = g in the first step
        value -= lr * v                            # nesterov: lr * (g + momentum * v)

    Args:
        lr: learning rate, at least 0.
        momentum: weight of the old velocity, at least 0 and below 1.
        nesterov: whether to look one step ahead; needs a momentum, and no dampening.
        weight_decay: at least 0.
        dampening: at least 0 and below 1.
        decoupled: whether the decay is taken from the value, value *= 1 - lr * weight_decay, and not added to the gradient.
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    slots = ("velocity",)

    def __init__(
        self,
        lr: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        decoupled: bool = False,
        groups: Groups = None,
    ) -> None:
        self.momentum = fraction("momentum", momentum)
        self.nesterov = bool(nesterov)
        self.dampening = fraction("dampening", dampening)
        self.decoupled = bool(decoupled)
        if self.nesterov and not self.momentum:
            raise ArgumentError(f"nesterov=True with momentum={momentum!r}: expected a momentum above 0, such as momentum=0.9")
        if self.nesterov and self.dampening:
            raise ArgumentError(f"nesterov=True with dampening={dampening!r}: expected dampening=0, as Nesterov's step has none")
        super().__init__(lr, weight_decay, groups)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        dampening = self.dampening if step > 1 else 0.0
        options = (lr, self.momentum, dampening, self.nesterov, self.weight_decay, self.decoupled)
        return "optimizer.sgd", (value, grad, *slots, *options)
