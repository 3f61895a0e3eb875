"""What dense and convolution layers share: y = product of x with weights, plus a bias, and how fused steps run it."""

from __future__ import annotations

from typing import Any

from nbnet import initializers
from nbnet.functional import checks
from nbnet.functional.activations import named
from nbnet.functional.fused import Gradients, Product, product_backward
from nbnet.layers.activations import activated, before_activation
from nbnet.layers.base import Layer, Shape


class ProductLayer(Layer):
    """Base of dense and convolution layers. A subclass makes `weight` and `bias` (see `add_weights`) and defines `product`."""

    replayable = True

    def __init__(self, use_bias: bool, weight_initializer: Any, bias_initializer: Any, activation: str | None) -> None:
        super().__init__()
        named(activation)
        self.activation = activation
        self.use_bias = use_bias
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer

    def add_weights(self, shape: Shape, outputs: int, fans: Shape | None = None) -> None:
        """Make `weight`, and `bias` if there is one.

        Args:
            fans: the shape (..., in, out) of the weight as its initializer sees it; None is `shape`.
        """
        initializer = self.weight_initializer
        if fans is not None:
            initialize = initializers.get(initializer)
            initializer = lambda rng, shape: initialize(rng, fans).reshape(shape)  # noqa: E731
        self.add_param("weight", shape, initializer)
        if self.use_bias:
            self.add_param("bias", (outputs,), self.bias_initializer)

    def product(self, x: Any) -> Product:
        """The product of a checked x, in the form that nbnet.functional takes."""
        raise NotImplementedError

    def in_form(self, weight: Any) -> Any:
        """The weight, or its gradient, in that form."""
        return weight

    def gradients(self) -> Gradients:
        """Arrays that the gradients go into."""
        return Gradients(self.in_form(self.params["weight"].grad), self.params["bias"].grad if self.use_bias else None)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        y, saved, _ = self.product(self.check_input(x)).run()
        return activated(self, y.reshape(len(y), *self.output_shape), saved, train)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy, saved = before_activation(dy, saved)
        dx = product_backward(self.as_product(dy), saved, self.gradients(), need_dx)
        return None if dx is None else dx.reshape(len(dx), *(self.input_shape or ()))

    def as_product(self, dy: Any) -> Any:
        """dy with the axes of the product: a layer on sequences (N, L, C) runs on images of height 1."""
        if len(self.output_shape) != 2:
            return dy
        dy = self.check_gradient(dy)
        return dy.reshape(len(dy), 1, *dy.shape[1:])

    def _weight_and_bias(self) -> tuple[Any, Any]:
        return self.in_form(self.params["weight"].value), self.params["bias"].value if self.use_bias else None
