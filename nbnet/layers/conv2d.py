"""Two-dimensional convolution layer."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional import checks
from nbnet.functional.activations import named
from nbnet.layers.activations import activated, before_activation
from nbnet.layers.base import Layer, Shape, image_shape


class Conv2D(Layer):
    """Convolution of NHWC images with a bank of filters.

    Args:
        filters: number of output channels.
        kernel_size, stride: a number of pixels, or (height, width).
        padding: "same" (as in TensorFlow: ceil(H / stride) outputs), "valid", or a number of zero pixels on every side.
        use_bias: False leaves the bias out; before a BatchNorm it would have no effect.
        weight_initializer, bias_initializer: a name ("he_normal", "glorot_uniform", ...) or a function (rng, shape) -> array.
        activation: None, or the name of an activation with its default options: "relu", "gelu", ... (nbnet.functional.activations.NAMED).
    Params: weight (kh, kw, in, filters), bias (filters,).
    """

    replayable = True

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        activation: str | None = None,
    ):
        super().__init__()
        checks.check_padding(padding)
        self.filters = checks.whole(filters, "filters")
        self.kernel_size = checks.pair(kernel_size, "kernel_size")
        self.stride = checks.pair(stride, "stride")
        self.padding = padding
        self.use_bias = use_bias
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer
        named(activation)
        self.activation = activation

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, "Conv2D")
        out_h, _ = checks.window(height, self.kernel_size[0], self.stride[0], self.padding, "height")
        out_w, _ = checks.window(width, self.kernel_size[1], self.stride[1], self.padding, "width")
        self.add_param("weight", (*self.kernel_size, channels, self.filters), self.weight_initializer)
        if self.use_bias:
            self.add_param("bias", (self.filters,), self.bias_initializer)
        return out_h, out_w, self.filters

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        bias = self.params["bias"].value if self.use_bias else None
        weight = self.params["weight"].value
        y, saved = F.conv2d_forward(x, weight, bias, stride=self.stride, padding=self.padding, backend=self.backend)
        return activated(self, y, saved, train)

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        dy, saved = before_activation(dy, saved)
        dbias = self.params["bias"].grad if self.use_bias else None
        options = {"need_dx": need_dx, "need_dbias": self.use_bias}
        dx, _, _ = F.conv2d_backward(dy, saved, dweight=self.params["weight"].grad, dbias=dbias, **options)
        return dx
