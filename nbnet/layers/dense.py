"""Dense (fully connected) layer."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.fused import Product
from nbnet.layers.base import Shape
from nbnet.layers.product import ProductLayer


class Dense(ProductLayer):
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
        super().__init__(use_bias, weight_initializer, bias_initializer, activation)
        self.units = checks.whole(units, "units")

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ShapeError(
                f"Dense got inputs of shape {input_shape}, expected flat features (I,): put Flatten() or GlobalAvgPool2D() before it"
            )
        self.add_weights((input_shape[0], self.units), self.units)
        return (self.units,)

    def product(self, x: Any) -> Product:
        return Product(x, *self._weight_and_bias(), self.backend)
