"""Pooling layers."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional import checks
from nbnet.functional.pool import geometry
from nbnet.layers.base import Layer, Shape, image_shape


class _Pool2D(Layer):
    """A window that slides over the image.

    Indices of the maxima and dilated windows are not supported (nbnet.functional.pool).

    Args:
        size, stride: a number of pixels, or (height, width); stride None means size.
        padding: "valid", "same" (TensorFlow's: ceil(H / stride) outputs), a number of pixels on every side, (height, width), or
            ((top, bottom), (left, right)). Padded pixels are never the maximum.
        ceil_mode: whether rows and columns at the end that do not fill a window get one, as far as it starts in the image or in the
            padding before it (as in PyTorch).
    """

    replayable = True

    def __init__(
        self,
        size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: Any = "valid",
        *,
        ceil_mode: bool = False,
    ):
        super().__init__()
        self.size = checks.pair(size, "size")
        self.stride = self.size if stride is None else checks.pair(stride, "stride")
        checks.check_padding(padding)
        self.padding = padding
        self.ceil_mode = ceil_mode

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, type(self).__name__)
        return *geometry(height, width, self.size, self.stride, self.padding, self.ceil_mode).out, channels


def _of_windows(layer: Layer, dy: Any, saved: Any) -> Any:
    """dy, checked, in the shape that the pooling of images gave."""
    checks.from_training(saved)
    return layer.check_gradient(dy, saved.out_shape[0]).reshape(saved.out_shape)


class MaxPool2D(_Pool2D):
    __doc__ = f"The largest value of each window; NaN where it contains one. {_Pool2D.__doc__}"
    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.max_pool2d_forward(x, self.size, self.stride, self.padding, ceil_mode=self.ceil_mode, backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.max_pool2d_backward(_of_windows(self, dy, saved), saved)


_COUNTING = """    count_include_pad: whether padded pixels count, as zeros (PyTorch's default); otherwise a mean is over real pixels
            alone (as in Keras). What ceil_mode adds behind the padding never counts.
    """


class AvgPool2D(_Pool2D):
    __doc__ = f"The mean of each window. {_Pool2D.__doc__}{_COUNTING}"
    replayable = True

    def __init__(
        self,
        size: int | tuple[int, int] = 2,
        stride: int | tuple[int, int] | None = None,
        padding: Any = "valid",
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ):
        super().__init__(size, stride, padding, ceil_mode=ceil_mode)
        self.count_include_pad = count_include_pad

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        options = {"ceil_mode": self.ceil_mode, "count_include_pad": self.count_include_pad}
        y, saved = F.avg_pool2d_forward(x, self.size, self.stride, self.padding, **options, backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.avg_pool2d_backward(_of_windows(self, dy, saved), saved)


class GlobalAvgPool2D(Layer):
    """The mean of each channel over the whole image: (H, W, C) -> (C,).

    Args:
        keepdims: whether the result stays an image, (1, 1, C).
    """

    replayable = True

    def __init__(self, keepdims: bool = False):
        super().__init__()
        self.keepdims = bool(keepdims)

    def create(self, input_shape: Shape) -> Shape:
        channels = image_shape(input_shape, "GlobalAvgPool2D")[2]
        return (1, 1, channels) if self.keepdims else (channels,)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.avg_pool2d_forward(x, x.shape[1:3], backend=self.backend)
        return y.reshape(len(x), *self.output_shape), saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.avg_pool2d_backward(_of_windows(self, dy, saved), saved)


class GlobalMaxPool2D(Layer):
    """The largest value of each channel in the whole image: (H, W, C) -> (C,).

    Args:
        keepdims: whether the output is an image of one pixel, (1, 1, C).
    """

    replayable = True

    def __init__(self, keepdims: bool = False):
        super().__init__()
        self.keepdims = keepdims

    def create(self, input_shape: Shape) -> Shape:
        channels = image_shape(input_shape, type(self).__name__)[2]
        return (1, 1, channels) if self.keepdims else (channels,)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.max_pool2d_forward(x, x.shape[1:3], backend=self.backend)
        return y if self.keepdims else y.reshape(len(x), -1), saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.max_pool2d_backward(_of_windows(self, dy, saved), saved)
