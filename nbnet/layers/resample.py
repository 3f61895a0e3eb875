"""Layers that pad, crop and resample images."""

from __future__ import annotations

from typing import Any

from nbnet import functional as F
from nbnet.functional import checks
from nbnet.functional.resample import check_upsampling, padded
from nbnet.layers.base import Layer, Shape, image_shape


class _Resampling(Layer):
    replayable = True

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return F.resample_backward(dy, saved)


class Pad2D(_Resampling):
    """Rows and columns around the image: (H, W, C) -> (top + H + bottom, left + W + right, C).

    Args:
        padding: a number of pixels on every side, (height, width), or ((top, bottom), (left, right)).
        mode: "zeros", "reflect" (the image mirrored in its outermost pixels) or "edge" (its outermost pixels repeated).
    """

    replayable = True

    def __init__(self, padding: Any = 1, mode: str = "zeros"):
        super().__init__()
        self.padding = checks.sides(padding, "padding")
        self.mode = mode
        padded(1, 1, ((0, 0), (0, 0)), mode)

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, type(self).__name__)
        rows, columns = padded(height, width, self.padding, self.mode)
        return len(rows), len(columns), channels

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.pad2d_forward(x, self.padding, self.mode, backend=self.backend)
        return y, saved if train else None


class ZeroPad2D(Pad2D):
    """Zeros around the image: Pad2D with mode "zeros".

    Args:
        padding: a number of pixels on every side, (height, width), or ((top, bottom), (left, right)).
    """

    replayable = True

    def __init__(self, padding: Any = 1):
        super().__init__(padding)


class Crop2D(_Resampling):
    """The image without its outermost rows and columns: (H, W, C) -> (H - top - bottom, W - left - right, C).

    Args:
        cropping: a number of pixels on every side, (height, width), or ((top, bottom), (left, right)).
    """

    replayable = True

    def __init__(self, cropping: Any = 1):
        super().__init__()
        self.cropping = checks.sides(cropping, "cropping")

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, "Crop2D")
        rows, columns = padded(height, width, self._padding(), "zeros")
        return len(rows), len(columns), channels

    def _padding(self) -> Any:
        (top, bottom), (left, right) = self.cropping
        return (-top, -bottom), (-left, -right)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.pad2d_forward(x, self._padding(), backend=self.backend)
        return y, saved if train else None


class UpSample2D(_Resampling):
    """Enlarge an image by a whole factor: (H, W, C) -> (H * factor, W * factor, C).

    Args:
        factor: one for both axes, or (height, width).
        mode: "nearest" repeats pixels. "bilinear" interpolates between the centres of pixels, and repeats the edge beyond the outermost
            (half-pixel centres: align_corners=False in PyTorch, UpSampling2D in Keras).
    """

    replayable = True

    def __init__(self, factor: int | tuple[int, int] = 2, mode: str = "nearest"):
        super().__init__()
        self.factor = checks.pair(factor, "factor")
        check_upsampling(mode)
        self.mode = mode

    def create(self, input_shape: Shape) -> Shape:
        height, width, channels = image_shape(input_shape, "UpSample2D")
        return height * self.factor[0], width * self.factor[1], channels

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.upsample2d_forward(x, self.factor, self.mode, backend=self.backend)
        return y, saved if train else None


class AdaptiveAvgPool2D(_Resampling):
    """The means of a given number of windows: (H, W, C) -> (*output_size, C).

    Output i of O is the mean of pixels floor(i * H / O) to ceil((i + 1) * H / O), as in PyTorch: windows differ by one pixel, and overlap,
    where O does not divide H.

    Args:
        output_size: one for both axes, or (height, width); it may be larger than the image.
    """

    replayable = True

    def __init__(self, output_size: int | tuple[int, int]):
        super().__init__()
        self.output_size = checks.pair(output_size, "output_size")

    def create(self, input_shape: Shape) -> Shape:
        return *self.output_size, image_shape(input_shape, "AdaptiveAvgPool2D")[2]

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        x = self.check_input(x)
        y, saved = F.adaptive_avg_pool2d_forward(x, self.output_size, backend=self.backend)
        return y, saved if train else None
