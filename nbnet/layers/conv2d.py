"""Two-dimensional convolution layer."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional import checks
from nbnet.layers.base import Layer, Shape, image_shape


class Conv2D(Layer):
    """Convolution of NHWC images with a bank of filters.

    Args:
        filters: number of output channels.
        kernel_size, stride: a number of pixels, or (height, width).
        padding: "same" (TensorFlow's rule), "valid", or a number of zero pixels on every side.
        use_bias: False leaves the bias out, as before a BatchNorm, which would cancel it.
        weight_initializer, bias_initializer: a name ("he_normal", "glorot_uniform", ...) or a function (rng, shape) -> array.
    Params: weight (kh, kw, in, filters), bias (filters,).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
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

    def _create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, "Conv2D")
        out_h, _ = checks.window(height, self.kernel_size[0], self.stride[0], self.padding, "height")
        out_w, _ = checks.window(width, self.kernel_size[1], self.stride[1], self.padding, "width")
        self._add_param("weight", (*self.kernel_size, channels, self.filters), self.weight_initializer)
        if self.use_bias:
            self._add_param("bias", (self.filters,), self.bias_initializer)
        return out_h, out_w, self.filters

    def forward(self, x, train=False):
        y, saved = self.run(x)
        return y, saved if train else None

    def run(self, x, stats: bool = False, slope: float = 1.0):
        """y and saved, with saved.stats if stats is True: for the batch norm that follows; slope: of the activation that follows."""
        x = self._check(x)
        bias = self.params["bias"].value if self.use_bias else None
        weight = self.params["weight"].value
        be = self.backend
        return F.conv2d_forward(x, weight, bias, stride=self.stride, padding=self.padding, slope=slope, stats=stats, backend=be)

    def backward(self, dy, saved, need_dx=True, dx=None, grads=None):
        """dx; dx, grads: where it and the parameters' gradients go, if not into a new array and the parameters."""
        dweight, *rest = grads or [param.grad for param in self._params.values()]
        dbias = rest[0] if rest else None
        dx, _, _ = F.conv2d_backward(dy, saved, dweight=dweight, dbias=dbias, dx=dx, need_dx=need_dx, need_dbias=self.use_bias)
        return dx
