"""Batch normalisation layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet import functional as F
from nbnet.errors import ArgumentError
from nbnet.layers.base import Layer, Shape


class BatchNorm(Layer):
    """Normalise each channel (the last axis) by the statistics of the batch; in evaluation by their moving averages.

    y = gamma * (x - mean) / sqrt(var + eps) + beta   (Ioffe and Szegedy 2015)

    Args:
        decay: the weight of the OLD moving value, 0 to 1: moving = decay * moving + (1 - decay) * batch.
        eps: added to the variance.
        center, scale: whether there is a beta, a gamma.
        unbiased: the moving variance averages the unbiased variance, n / (n - 1) times the biased one that normalises, as the
            paper's algorithm 2 and PyTorch have it; False averages the biased one, as Keras and Flax have it.
        gamma_initializer, beta_initializer: a name or a function (rng, shape) -> array.
        momentum: refused, since PyTorch and Keras mean opposite things by it.
    Params: gamma (C,), beta (C,). Buffers: moving_mean (C,), moving_var (C,), which start at 0 and 1.
    """

    def __init__(
        self,
        decay: float = 0.9,
        eps: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        unbiased: bool = True,
        gamma_initializer: Any = "ones",
        beta_initializer: Any = "zeros",
        momentum: Any = None,
    ):
        super().__init__()
        if momentum is not None:
            raise ArgumentError(
                f"momentum={momentum!r} is ambiguous: PyTorch means the weight of the new value, Keras of the old one; "
                f"say decay=, the weight of the old moving value (PyTorch's 0.1 is decay=0.9, Keras's 0.99 is decay=0.99)"
            )
        if not 0 <= decay <= 1:
            raise ArgumentError(f"decay={decay!r}: wanted the weight of the old moving value, from 0 to 1")
        if not eps >= 0:
            raise ArgumentError(f"eps={eps!r}: wanted a number that is at least 0")
        self.decay = decay
        self.eps = eps
        self.center = center
        self.scale = scale
        self.unbiased = unbiased
        self.gamma_initializer = gamma_initializer
        self.beta_initializer = beta_initializer

    def _create(self, input_shape: Shape) -> Shape:
        channels = (input_shape[-1],)
        if self.scale:
            self._add_param("gamma", channels, self.gamma_initializer)
        if self.center:
            self._add_param("beta", channels, self.beta_initializer)
        self._buffers["moving_mean"] = np.zeros(channels, self.dtype)
        self._buffers["moving_var"] = np.ones(channels, self.dtype)
        return input_shape

    def forward(self, x, train=False):
        x = self._check(x)
        gamma = self.params["gamma"].value if self.scale else None
        beta = self.params["beta"].value if self.center else None
        moving_mean, moving_var = self._buffers["moving_mean"], self._buffers["moving_var"]
        if not train:
            y, _ = F.batch_norm_forward(x, gamma, beta, eps=self.eps, mean=moving_mean, var=moving_var, backend=self.backend)
            return y, None
        y, saved = F.batch_norm_forward(x, gamma, beta, eps=self.eps, backend=self.backend)
        correction = saved.total / (saved.total - 1) if self.unbiased else 1.0
        moving_mean[:] = self.decay * moving_mean + (1 - self.decay) * saved.mean
        moving_var[:] = self.decay * moving_var + (1 - self.decay) * correction * saved.var
        return y, saved

    def backward(self, dy, saved, need_dx=True):
        dgamma = self.params["gamma"].grad if self.scale else None
        dbeta = self.params["beta"].grad if self.center else None
        dx, _, _ = F.batch_norm_backward(dy, saved, dgamma=dgamma, dbeta=dbeta)
        return dx
