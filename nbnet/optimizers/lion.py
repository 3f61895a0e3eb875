"""Lion."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.base import Groups, Optimizer, fraction


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of an averaged gradient   (Chen et al. 2023, algorithm 2).

        value *= 1 - lr * weight_decay
        value -= lr * sign(beta1 * m + (1 - beta1) * grad)
        m = beta2 * m + (1 - beta2) * grad

    Its authors advise an lr 3 to 10 times smaller than AdamW's, and a weight_decay as many times larger.

    Args:
        lr: learning rate, at least 0.
        beta1, beta2: weights of the old average in the step and in the average, at least 0 and below 1.
        weight_decay: at least 0, decoupled.
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    slots = ("m",)

    def __init__(self, lr: float = 1e-4, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0, groups: Groups = None) -> None:
        self.beta1 = fraction("beta1", beta1)
        self.beta2 = fraction("beta2", beta2)
        super().__init__(lr, weight_decay, groups)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        return "optimizer.lion", (value, grad, *slots, lr, self.beta1, self.beta2, self.weight_decay)
