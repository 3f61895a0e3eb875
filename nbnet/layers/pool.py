"""Pooling layers."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional import checks
from nbnet.functional.pool import geometry
from nbnet.layers.base import Layer, Shape, image_shape


class _Pool2D(Layer):
    """A window that slides over the image.

    Args:
        size, stride: a number of pixels, or (height, width); stride None means size.
        padding: "valid", "same" or a number of pixels. Padded pixels never win a maximum and are not counted in a mean.
    """

    replayable = True

    def __init__(self, size: int | tuple[int, int] = 2, stride: int | tuple[int, int] | None = None, padding: str | int = "valid"):
        super().__init__()
        self.size = checks.pair(size, "size")
        self.stride = self.size if stride is None else checks.pair(stride, "stride")
        checks.check_padding(padding)
        self.padding = padding

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, type(self).__name__)
        (out_h, out_w), _ = geometry(height, width, self.size, self.stride, self.padding)
        return out_h, out_w, channels


class MaxPool2D(_Pool2D):
    __doc__ = f"The largest value of each window. {_Pool2D.__doc__}"
    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.max_pool2d_forward(x, self.size, self.stride, self.padding, backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.max_pool2d_backward(dy, saved)


class AvgPool2D(_Pool2D):
    __doc__ = f"The mean of each window. {_Pool2D.__doc__}"
    replayable = True

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.avg_pool2d_forward(x, self.size, self.stride, self.padding, backend=self.backend)
        return y, saved if train else None

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.avg_pool2d_backward(dy, saved)


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
        checks.from_training(saved)
        return F.avg_pool2d_backward(dy.reshape(saved.out_shape), saved)
