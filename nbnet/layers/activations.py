"""Activation layers. Each backward needs only the output y."""

from __future__ import annotations

import math
from typing import Any

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape


class _Elementwise(Layer):
    """y = f(x) and dx = dy * f'(x), element by element, through the kernels activation.<function>_forward and _backward."""

    replayable = True
    function = ""
    options: tuple[float, ...] = ()

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y = self.backend.empty(x.shape, x.dtype)
        self.backend.kernel(f"activation.{self.function}_forward")(x.reshape(-1), *self.options, y.reshape(-1))
        return y, y if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy = checks.shaped(dy, "dy", saved.shape, saved.dtype, be=self.backend)
        dx = self.backend.empty(saved.shape, saved.dtype)
        kernel = self.backend.kernel(f"activation.{self.function}_backward")
        kernel(dy.reshape(-1), saved.reshape(-1), *self.options, dx.reshape(-1))
        return dx


class ReLU(_Elementwise):
    """y = max(x, 0)."""

    function = "relu"


class LeakyReLU(_Elementwise):
    """y = x where x > 0, else slope * x   (Maas, Hannun and Ng 2013).

    Args:
        slope: of the negative part, above 0 (0 is ReLU).
    """

    replayable = True

    function = "leaky_relu"

    def __init__(self, slope: float = 0.01):
        super().__init__()
        expected = "a finite number above 0; for slope 0 use ReLU()"
        self.slope = checks.number(slope, "LeakyReLU: slope", expected, lambda slope: 0 < slope < math.inf)

    @property
    def options(self) -> tuple[float, ...]:  # type: ignore[override]
        return (self.slope,)


class Tanh(_Elementwise):
    """y = tanh(x)."""

    function = "tanh"


class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x))."""

    function = "sigmoid"


class Softmax(Layer):
    """Probabilities over the last axis. The loss softmax_cross_entropy takes logits: do not end a model for it with this layer."""

    replayable = True

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"Softmax got inputs of shape {input_shape}, expected flat features (C,): put Flatten() before it")
        return input_shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y = self.backend.empty(x.shape, x.dtype)
        self.backend.kernel("activation.softmax_forward")(x, y)
        return y, y if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy = checks.shaped(dy, "dy", saved.shape, saved.dtype, be=self.backend)
        dx = self.backend.empty(saved.shape, saved.dtype)
        self.backend.kernel("activation.softmax_backward")(dy, saved, dx)
        return dx
