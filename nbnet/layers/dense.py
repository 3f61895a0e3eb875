"""Dense (fully connected) layer."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.dense import dense_backward_norm
from nbnet.layers.base import Layer, Shape


class Dense(Layer):
    """y = x @ weight + bias.

    Args:
        units: number of outputs.
        use_bias: False leaves the bias out, as before a BatchNorm, which would cancel it.
        weight_initializer, bias_initializer: a name ("he_normal", "glorot_uniform", ...) or a function (rng, shape) -> array.
    Params: weight (in, units), bias (units,).
    """

    def __init__(self, units: int, use_bias: bool = True, weight_initializer: Any = "he_normal", bias_initializer: Any = "zeros"):
        super().__init__()
        self.units = checks.whole(units, "units")
        self.use_bias = use_bias
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer

    def _create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(f"Dense wants flat features (I,), got {input_shape}: put Flatten() or GlobalAvgPool2D() before it")
        self._add_param("weight", (input_shape[0], self.units), self.weight_initializer)
        if self.use_bias:
            self._add_param("bias", (self.units,), self.bias_initializer)
        return (self.units,)

    def forward(self, x, train=False):
        y, saved = self.run(x)
        return y, saved if train else None

    def run(self, x, stats: bool = False, slope: float = 1.0):
        """y and saved, with saved.stats if stats is True: for the batch norm that follows; slope: of the activation that follows."""
        x = self._check(x)
        bias = self.params["bias"].value if self.use_bias else None
        return F.dense_forward(x, self.params["weight"].value, bias, slope=slope, stats=stats, backend=self.backend)

    def backward_norm(self, dy, norm, coefficients, sum_dy, saved) -> None:
        """backward of a first layer with few inputs, through the batch norm behind it: see dense_backward_norm."""
        dbias = self.params["bias"].grad if self.use_bias else None
        dense_backward_norm(dy, norm, coefficients, sum_dy, saved, dweight=self.params["weight"].grad, dbias=dbias)

    def backward(self, dy, saved, need_dx=True):
        dbias = self.params["bias"].grad if self.use_bias else None
        dx, _, _ = F.dense_backward(dy, saved, dweight=self.params["weight"].grad, dbias=dbias, need_dx=need_dx)
        return dx
