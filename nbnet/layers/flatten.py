"""Flatten layer."""

from __future__ import annotations

import math
from typing import Any

from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape


class Flatten(Layer):
    """Each example as one row: (H, W, C) -> (H * W * C,)."""

    replayable = True

    def create(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        return x.reshape(len(x), -1), x.shape if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        return self.check_gradient(dy, saved[0]).reshape(saved)
