"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.base import Optimizer, fraction, positive


class Adam(Optimizer):
    """Moving averages of the gradient and of its square, each corrected for its start at 0   (Kingma and Ba 2015, algorithm 1).

        g = grad + weight_decay * value
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        value -= lr * m_hat / (sqrt(v_hat) + eps)     # m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t) at step t = 1, 2, ...

    Args:
        lr: learning rate, above 0.
        beta1, beta2: weights of the old averages, at least 0 and below 1.
        eps: above 0.
        weight_decay: at least 0.
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.beta1 = fraction("beta1", beta1)
        self.beta2 = fraction("beta2", beta2)
        self.eps = positive("eps", eps)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        corrections = 1 - self.beta1**step, 1 - self.beta2**step
        options = (lr, self.beta1, self.beta2, self.eps, self.weight_decay, self.decoupled)
        return "optimizer.adam", (value, grad, *slots, *options, *corrections)


class AdamW(Adam):
    """Adam whose weight decay does not pass through the averages   (Loshchilov and Hutter 2019, algorithm 2, decay times lr).

        value *= 1 - lr * weight_decay                # then as in Adam, with g = grad

    Args: as of Adam.
    """

    decoupled = True

    def __init__(self, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay)
