"""Transposed convolution layers, which enlarge images (H, W, C) or sequences (L, C)."""

from __future__ import annotations

import math
from typing import Any

from nbnet import initializers
from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.conv2d import Window, check_groups
from nbnet.functional.conv_transpose import conv_transpose2d_backward, transposed_size, upsample, whole_pair
from nbnet.layers.base import Layer, Shape, image_shape

Size = int | tuple[int, int]


class ConvTranspose2D(Layer):
    """The transpose of a convolution: enlarges NHWC images by its stride.

    Args:
        filters: number of output channels.
        kernel_size, stride, dilation: a number of pixels, or (height, width).
        padding: "same" (stride times the size, as in Keras), or what is cut off the result: "valid" (nothing), a number of pixels, (height,
            width) or ((top, bottom), (left, right)); PyTorch's padding=p is p.
        output_padding: rows and columns added at the bottom and right, as in PyTorch; a number, or (height, width).
        use_bias, weight_initializer, bias_initializer, groups: as in Conv2D.
    Params: weight (kh, kw, filters / groups, in), as Keras has it; bias (filters,).
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
        *,
        output_padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.filters = checks.whole(filters, "filters")
        self.kernel_size = checks.pair(kernel_size, "kernel_size")
        self.stride, self.dilation = checks.pair(stride, "stride"), checks.pair(dilation, "dilation")
        self.padding, self.groups = padding, groups
        self.window = self._window()
        self.output_padding = whole_pair(output_padding)
        self.use_bias = use_bias
        self.weight_initializer = weight_initializer
        self.bias_initializer = bias_initializer

    def _window(self) -> Window:
        return Window.checked(self.stride, self.padding, self.dilation, self.groups)

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = self._image(input_shape)
        self.window = self._window()  # the attributes may have been set since
        check_groups(self.groups, channels, self.filters)
        (out_h, out_w), _ = transposed_size(height, width, self.kernel_size, self.window, self.output_padding)
        per_group = self.filters // self.groups
        # Each output is a sum over the channels of its group: that is the fan in.
        fans, initialize = (*self.kernel_size, channels // self.groups, self.filters), initializers.get(self.weight_initializer)
        shape = self._own((*self.kernel_size, per_group, channels))
        self.add_param("weight", shape, lambda rng, shape: initialize(rng, fans).swapaxes(-1, -2).reshape(shape))
        if self.use_bias:
            self.add_param("bias", (self.filters,), self.bias_initializer)
        return self._own((out_h, out_w, self.filters))

    def _image(self, shape: Shape) -> tuple[int, int, int]:
        """The input shape as (H, W, C)."""
        return image_shape(shape, "ConvTranspose2D")

    def _own(self, shape: Shape) -> Shape:
        """A shape without the axes that this layer does not have."""
        return shape

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        images = x.reshape(len(x), *self._image(x.shape[1:]))
        weight = self._weight(self.params["weight"].value)
        bias = self.params["bias"].value if self.use_bias else None
        y, saved = upsample(images, weight, bias, self.window, self.output_padding, self.backend)
        return y.reshape(len(y), *self.output_shape), saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        checks.from_training(saved)
        dy = self.check_gradient(dy, len(saved.x)).reshape(saved.out_shape)
        dbias = self.params["bias"].grad if self.use_bias else None
        dweight = self._weight(self.params["weight"].grad)
        dx, _, _ = conv_transpose2d_backward(dy, saved, dweight=dweight, dbias=dbias, need_dx=need_dx)
        return None if dx is None else dx.reshape(len(dx), *(self.input_shape or ()))

    def multiply_adds(self) -> int:
        weight = self._params.get("weight")  # each number of it once for each place of the input
        return 0 if weight is None else int(weight.value.size) * math.prod((self.input_shape or ())[:-1])

    def _weight(self, weight: Any) -> Any:
        return weight.reshape(*self.kernel_size, *weight.shape[-2:])


class ConvTranspose1D(ConvTranspose2D):
    """The transpose of a convolution of sequences: enlarges (N, L, C) by its stride, as images of height 1.

    Args:
        filters: number of output channels.
        kernel_size, stride, dilation, output_padding: numbers of steps.
        padding: "same", "valid", a number of steps or (before, after): see ConvTranspose2D.
        use_bias, weight_initializer, bias_initializer, groups: as in Conv2D.
    Params: weight (k, filters / groups, in), bias (filters,).
    """

    replayable = True
    _attributes = {"padding": "as it was passed"}  # the attribute is the padding of images

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        stride: int = 1,
        padding: Any = "same",
        use_bias: bool = True,
        weight_initializer: Any = "he_normal",
        bias_initializer: Any = "zeros",
        *,
        output_padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ):
        sizes = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        kernel, step, distance = ((1, checks.whole(value, name)) for name, value in sizes.items())
        extra = 0, checks.whole(output_padding, "output_padding", 0)
        super().__init__(
            filters,
            kernel,
            step,
            checks.padding_of_steps(padding),
            use_bias,
            weight_initializer,
            bias_initializer,
            output_padding=extra,
            dilation=distance,
            groups=groups,
        )

    def _image(self, shape: Shape) -> tuple[int, int, int]:
        if len(shape) != 2:
            raise ShapeError(f"ConvTranspose1D got inputs of shape {shape}, expected sequences (L, C)")
        return 1, shape[0], shape[1]

    def _own(self, shape: Shape) -> Shape:
        return shape[1:]
