"""Dense (fully connected) layer."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.activations import named
from nbnet.layers.activations import activated, before_activation
from nbnet.layers.base import Layer, Shape


class Dense(Layer):
    """y = x @ weight + bias.

    Args:
        units: number of outputs.
        use_bias: False leaves the bias out; before a BatchNorm it would have no effect.
        weight_initializer, bias_initializer: a name ("he_normal", "glorot_uniform", ...) or a function (rng, shape) -> array.
        activation: None, or the name of an activation with its default options: "relu", "gelu", ... (nbnet.functional.activations.NAMED).
    Params: weight (in, units), bias (units,).
    """

    replayable = True

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        activation: str | None = None,
    ):
        super().__init__()
        self.units = checks.whole(units, "units")
        self.use_bias = use_bias
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer
        named(activation)
        self.activation = activation

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense got inputs of shape {input_shape}, expected flat features (I,): put Flatten() or GlobalAvgPool2D() before it"
            )
        self.add_param("weight", (input_shape[0], self.units), self.weight_initializer)
        if self.use_bias:
            self.add_param("bias", (self.units,), self.bias_initializer)
        return (self.units,)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        bias = self.params["bias"].value if self.use_bias else None
        y, saved = F.dense_forward(x, self.params["weight"].value, bias, backend=self.backend)
        return activated(self, y, saved, train)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        dy, saved = before_activation(dy, saved)
        dbias = self.params["bias"].grad if self.use_bias else None
        dx, _, _ = F.dense_backward(dy, saved, dweight=self.params["weight"].grad, dbias=dbias, need_dx=need_dx)
        return dx
