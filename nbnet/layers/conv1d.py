"""Convolution layer on sequences (L, C): images of height 1."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.conv2d import Window, check_groups, out_size
from nbnet.functional.fused import Product
from nbnet.layers.base import Shape
from nbnet.layers.product import ProductLayer


class Conv1D(ProductLayer):
    """Convolution of sequences (N, L, C) with a bank of filters.

    Args:
        filters: number of output channels.
        kernel_size, stride, dilation: numbers of steps.
        padding: "same" (ceil(L / stride) outputs, an odd step at the end), "valid", "causal" (all of it before the first step, so that no
            output depends on later inputs), a number of zero steps on both sides, or (before, after).
        use_bias, weight_initializer, bias_initializer, activation, groups, padding_mode: as in Conv2D.
    Params: weight (k, in / groups, filters), bias (filters,).
    """

    replayable = True

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        stride: int = 1,
        padding: Any = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        activation: str | None = None,
        *,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ):
        super().__init__(use_bias, weight_initializer, bias_initializer, activation)
        self.filters = checks.whole(filters, "filters")
        self.kernel_size = checks.whole(kernel_size, "kernel_size")
        self.stride, self.dilation = checks.whole(stride, "stride"), checks.whole(dilation, "dilation")
        self.padding, self.groups, self.padding_mode = padding, groups, padding_mode
        self.window = self._window()

    def _window(self) -> Window:
        """That of images of height 1."""
        padding: Any = self.padding
        if isinstance(padding, str) and padding == "causal":
            padding = (self.kernel_size - 1) * self.dilation, 0
        sides = checks.padding_of_steps(padding, "causal")
        return Window.checked((1, self.stride), sides, (1, self.dilation), self.groups, self.padding_mode)

    def create(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ShapeError(f"Conv1D got inputs of shape {input_shape}, expected sequences (L, C); for images use Conv2D")
        length, channels = input_shape
        self.window = self._window()  # the attributes may have been set since
        check_groups(self.groups, channels, self.filters)
        (_, out_length), _ = out_size(1, length, (1, self.kernel_size), self.window)
        self.add_weights((self.kernel_size, channels // self.groups, self.filters), self.filters)
        return out_length, self.filters

    def in_form(self, weight: Any) -> Any:
        return weight.reshape(1, *weight.shape)

    def product(self, x: Any) -> Product:
        return Product(x.reshape(len(x), 1, *x.shape[1:]), *self._weight_and_bias(), self.backend, self.window)
