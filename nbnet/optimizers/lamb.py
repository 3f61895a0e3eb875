"""LAMB."""

from __future__ import annotations

from typing import Any

from nbnet.optimizers.adam import Moments
from nbnet.optimizers.base import Groups, tiny
from nbnet.optimizers.matrices import add_scaled, norms
from nbnet.runtime.backend import Backend


class LAMB(Moments):
    """Adam's step, scaled for each parameter to a share lr of the parameter's size   (You et al. 2020, algorithm 2).

        u = m_hat / (sqrt(v_hat) + eps) + weight_decay * value          # m_hat, v_hat as in Adam, of the gradient alone
        value -= lr * |value| / |u| * u                                 # L2 norms of the parameter; lr * u where one of them is 0

    Eps is placed as in Keras, which has no weight_decay in u.

    Args: as of Adam. weight_decay goes through the norms.
    """

    by_parameter = True
    decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        groups: Groups = None,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay, groups)

    def _update(self, backend: Backend, value: Any, grad: Any, slots: list[Any], lr: float) -> None:
        value, u = value.reshape(-1), backend.zeros((value.size,), value.dtype)
        moments = grad.reshape(-1), *(slot.reshape(-1) for slot in slots)
        options = -1.0, self.beta1, self.beta2, self.eps or tiny(value.dtype), 0.0, False
        backend.kernel("optimizer.adam")(u, *moments, *options, *self._corrections(self.steps))
        if self.weight_decay:
            add_scaled(backend, u, value, self.weight_decay)
        of_value, of_u = norms(backend, value, u)
        add_scaled(backend, value, u, -lr * (of_value / of_u if of_value > 0 and of_u > 0 else 1.0))
