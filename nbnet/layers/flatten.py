"""Flatten layer."""

from __future__ import annotations

import math

from nbnet.layers.base import Layer, Shape


class Flatten(Layer):
    """Each example as one row: (H, W, C) -> (H * W * C,)."""

    def _create(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x, train=False):
        x = self._check(x)
        return x.reshape(len(x), -1), x.shape if train else None

    def backward(self, dy, saved, need_dx=True):
        return dy.reshape(saved)
