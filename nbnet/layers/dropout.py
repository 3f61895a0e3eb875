"""Dropout layer."""

from __future__ import annotations

import numpy as np

from nbnet import functional as F
from nbnet.functional.dropout import check_rate
from nbnet.layers.base import Layer, Shape


class Dropout(Layer):
    """Drop each element with probability `rate` in training, and divide what is kept by 1 - rate; the identity in evaluation.

    Args:
        rate: the probability to DROP, 0 to 1.
        seed: None follows the model's seed.
    Buffers: seed, and step, the number of training passes so far, which makes each pass's mask another one. The mask is a
    function of (seed, layer, step, element): it is never stored, and a resumed run goes on with the same masks.
    """

    def __init__(self, rate: float, seed: int | None = None):
        super().__init__()
        self.rate = check_rate(rate)
        self._own_seed = seed

    def _create(self, input_shape: Shape) -> Shape:
        self._buffers["seed"] = np.array([self.seed if self._own_seed is None else self._own_seed], np.uint64)
        self._buffers["step"] = np.zeros(1, np.int64)
        return input_shape

    def forward(self, x, train=False):
        x = self._check(x)
        step = self._buffers["step"]
        y, saved = F.dropout_forward(
            x,
            self.rate,
            seed=int(self._buffers["seed"][0]),
            step=int(step[0]) & 0xFFFFFFFF,
            stream=self.stream,
            train=train,
            backend=self.backend,
        )
        if not train:
            return y, None
        step += 1
        return y, saved

    def backward(self, dy, saved, need_dx=True):
        return F.dropout_backward(dy, saved)
