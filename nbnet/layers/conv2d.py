"""Convolution layers on images (H, W, C)."""

from __future__ import annotations

from typing import Any

from nbnet.functional import checks
from nbnet.functional.conv2d import Window, check_groups, out_size
from nbnet.functional.fused import Product
from nbnet.layers.base import Shape, image_shape
from nbnet.layers.product import ProductLayer

Size = int | tuple[int, int]


class Conv2D(ProductLayer):
    """Convolution of NHWC images with a bank of filters.

    Args:
        filters: number of output channels.
        kernel_size, stride: a number of pixels, or (height, width).
        padding: "same", "valid", a number of pixels on every side, (height, width) or ((top, bottom), (left, right)). "same" is
            TensorFlow's: ceil(H / stride) outputs, an odd pixel at the bottom and right. With stride 2, even sizes and a 3 x 3 kernel that
            is ((0, 1), (0, 1)); PyTorch's padding=1 is ((1, 1), (1, 1)), here too.
        use_bias: False leaves the bias out; before a BatchNorm it would have no effect.
        weight_initializer, bias_initializer: a name ("he_normal", "glorot_uniform", ...) or a function (rng, shape) -> array.
        dilation: the distance of the kernel's pixels, or (height, width).
        groups: a divisor of both numbers of channels: the output channels of each group see the input channels of that group alone.
        padding_mode: "zeros", "reflect" (the image mirrored in its outermost pixels) or "edge" (its outermost pixels repeated).
        activation: None, or the name of an activation with its default options: "relu", "gelu", ... (nbnet.functional.activations.NAMED).
    Params: weight (kh, kw, in / groups, filters), bias (filters,).
    """

    replayable = True

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Any = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        activation: str | None = None,
        *,
        dilation: Size = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ):
        super().__init__(use_bias, weight_initializer, bias_initializer, activation)
        self.filters = checks.whole(filters, "filters")
        self.kernel_size = checks.pair(kernel_size, "kernel_size")
        self.stride, self.dilation = checks.pair(stride, "stride"), checks.pair(dilation, "dilation")
        self.groups, self.padding, self.padding_mode = groups, padding, padding_mode
        self.window = self._window()

    def _window(self) -> Window:
        return Window.checked(self.stride, self.padding, self.dilation, self.groups, self.padding_mode)

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, type(self).__name__)
        self.window = self._window()  # the attributes may have been set since
        check_groups(self.groups, channels, self.filters)
        (out_h, out_w), _ = out_size(height, width, self.kernel_size, self.window)
        self.add_weights((*self.kernel_size, channels // self.groups, self.filters), self.filters)
        return out_h, out_w, self.filters

    def product(self, x: Any) -> Product:
        return Product(x, *self._weight_and_bias(), self.backend, self.window)


class DepthwiseConv2D(ProductLayer):
    """Convolution of each channel of NHWC images with kernels of its own.

    Args:
        kernel_size, stride, padding, use_bias, weight_initializer, bias_initializer, activation, dilation, padding_mode: as in Conv2D.
        multiplier: output channels for each input channel; those of channel c are c * multiplier and the following ones.
    Params: weight (kh, kw, in, multiplier), bias (in * multiplier,).
    """

    replayable = True

    def __init__(
        self,
        kernel_size: Size,
        stride: Size = 1,
        padding: Any = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        activation: str | None = None,
        *,
        multiplier: int = 1,
        dilation: Size = 1,
        padding_mode: str = "zeros",
    ):
        super().__init__(use_bias, weight_initializer, bias_initializer, activation)
        self.multiplier = checks.whole(multiplier, "multiplier")
        self.kernel_size = checks.pair(kernel_size, "kernel_size")
        self.stride, self.dilation = checks.pair(stride, "stride"), checks.pair(dilation, "dilation")
        self.padding, self.padding_mode = padding, padding_mode
        self.window = self._window(1)

    def _window(self, channels: int) -> Window:
        return Window.checked(self.stride, self.padding, self.dilation, channels, self.padding_mode)

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, "DepthwiseConv2D")
        self.window = self._window(channels)
        (out_h, out_w), _ = out_size(height, width, self.kernel_size, self.window)
        outputs = channels * self.multiplier
        self.add_weights((*self.kernel_size, channels, self.multiplier), outputs, fans=(*self.kernel_size, 1, outputs))
        return out_h, out_w, outputs

    def in_form(self, weight: Any) -> Any:
        """(kh, kw, in, multiplier) as the weight of a convolution in groups of one channel."""
        return weight.reshape(*self.kernel_size, 1, -1)

    def product(self, x: Any) -> Product:
        return Product(x, *self._weight_and_bias(), self.backend, self.window)
