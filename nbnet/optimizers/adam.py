"""Adam and its relatives: averages of the gradient and of its square."""

from __future__ import annotations

import math
from typing import Any

from nbnet.optimizers.base import Groups, Optimizer, at_least_0, fraction, tiny

SMALLEST = 1e-20  # of a product that is subtracted from 1


class Moments(Optimizer):
    """What they share: the averages m and v, their options, and the corrections for their start at 0."""

    slots = ("m", "v")
    decoupled = False

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, groups: Groups) -> None:
        self.beta1 = fraction("beta1", beta1)
        self.beta2 = fraction("beta2", beta2)
        self.eps = at_least_0("eps", eps)
        super().__init__(lr, weight_decay, groups)

    def _options(self, lr: float, dtype: Any) -> tuple[Any, ...]:
        return lr, self.beta1, self.beta2, self.eps or tiny(dtype), self.weight_decay, self.decoupled

    def _corrections(self, step: int) -> tuple[float, float]:
        return 1 - self.beta1**step, 1 - self.beta2**step


class Adam(Moments):
    """Moving averages of the gradient and of its square, each corrected for its start at 0   (Kingma and Ba 2015, algorithm 1).

        g = grad + weight_decay * value
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        value -= lr * m_hat / (sqrt(v_hat) + eps)     # m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t) at step t = 1, 2, ...

    PyTorch places eps in the same way. In Keras eps is added to sqrt(v), before the correction: there a step equals one here with
    eps / sqrt(1 - beta2^t).

    Args:
        lr: learning rate, at least 0.
        beta1, beta2: weights of the old averages, at least 0 and below 1.
        eps: at least 0; with 0, the quotient 0 / 0 of an element whose gradient has always been 0 is 0.
        weight_decay: at least 0.
        amsgrad: whether the largest v so far takes the place of v   (Reddi, Kale and Kumar 2018).
        groups: options of some parameters (see nbnet.optimizers.groups).
    """

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        groups: Groups = None,
    ) -> None:
        self.amsgrad = bool(amsgrad)
        super().__init__(lr, beta1, beta2, eps, weight_decay, groups)

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("m", "v", "largest") if self.amsgrad else ("m", "v")

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        arguments = (value, grad, *slots, *self._options(lr, value.dtype), *self._corrections(step))
        return "optimizer.amsgrad" if self.amsgrad else "optimizer.adam", arguments


class AdamW(Adam):
    """Adam whose weight decay does not pass through the averages   (Loshchilov and Hutter 2019, algorithm 2, decay times lr).

        value *= 1 - lr * weight_decay                # then as in Adam, with g = grad

    Args: as of Adam.
    """

    decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        groups: Groups = None,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay, amsgrad, groups)


class NAdam(Moments):
    """Adam with Nesterov's momentum   (Dozat 2016, in PyTorch's form).

        mu_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2),  p_t = mu_1 * ... * mu_t
        value -= lr * ((1 - mu_t) / (1 - p_t) * g + mu_(t+1) / (1 - p_(t+1)) * m) / (sqrt(v_hat) + eps)      # g, m, v as in Adam

    Keras has momentum_decay = 1. Eps is placed as in PyTorch and Keras.

    Args: as of Adam, and
        momentum_decay: how fast mu approaches beta1, at least 0.
        decoupled: whether the decay is taken from the value, value *= 1 - lr * weight_decay, and not added to the gradient.
    """

    def __init__(
        self,
        lr: float = 2e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled: bool = False,
        groups: Groups = None,
    ) -> None:
        self.momentum_decay = at_least_0("momentum_decay", momentum_decay)
        self.decoupled = bool(decoupled)
        self._product: tuple[Any, ...] = ()  # what it was computed from, and p of the last step
        super().__init__(lr, beta1, beta2, eps, weight_decay, groups)

    def _momentum(self, step: int) -> float:
        return self.beta1 * (1 - 0.5 * 0.96 ** (step * self.momentum_decay))

    def _product_until(self, step: int) -> float:
        """mu_1 * ... * mu_step: from the step before, or, in a restored run, from the start. Below SMALLEST it stays as it is."""
        own = self.beta1, self.momentum_decay
        last, product = self._product[1:] if self._product[:1] == (own,) and self._product[1] <= step else (0, 1.0)
        while last < step and product > SMALLEST:
            last += 1
            product *= self._momentum(last)
        self._product = own, step, product
        return product

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        now, following, product = self._momentum(step), self._momentum(step + 1), self._product_until(step)
        shares = (1 - now) / (1 - product), following / (1 - product * following)
        return "optimizer.nadam", (value, grad, *slots, *self._options(lr, value.dtype), *shares, self._corrections(step)[1])


class RAdam(Moments):
    """Adam that leaves out the division by sqrt(v) while v has too few gradients   (Liu et al. 2020, algorithm 2, in PyTorch's form).

        n = 2 / (1 - beta2) - 1,  n_t = n - 2 * t * beta2^t / (1 - beta2^t)
        value -= lr * m_hat * r * sqrt(1 - beta2^t) / (sqrt(v) + eps)  if n_t > 5 else  lr * m_hat           # m, v as in Adam
        r = sqrt((n_t - 4) * (n_t - 2) * n / ((n - 4) * (n - 2) * n_t))

    Args: as of Adam, and
        decoupled: whether the decay is taken from the value, value *= 1 - lr * weight_decay, and not added to the gradient.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Groups = None,
    ) -> None:
        self.decoupled = bool(decoupled)
        super().__init__(lr, beta1, beta2, eps, weight_decay, groups)

    def _call(self, value: Any, grad: Any, slots: list[Any], lr: float, step: int) -> tuple[str, tuple[Any, ...]]:
        corrections = self._corrections(step)
        most = 2 / (1 - self.beta2) - 1
        length = most - 2 * step * self.beta2**step / corrections[1]
        factor = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)) if length > 5 else 0.0
        return "optimizer.radam", (value, grad, *slots, *self._options(lr, value.dtype), *corrections, factor)
