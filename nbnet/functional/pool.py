"""Max and average pooling on NHWC images.

Indices of the maxima and dilated windows are not supported: unpooling by indices is rare (UpSample2D does without), and a dilated
window reads the same pixels as a convolution with dilation, which learns its weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.runtime.backend import Backend, get_backend


class MaxPool2DSaved(NamedTuple):
    x: np.ndarray
    geometry: tuple[int, ...]  # size_h, size_w, stride_h, stride_w, pad_top, pad_left
    out_shape: tuple[int, ...]
    backend: Backend


class AvgPool2DSaved(NamedTuple):
    in_shape: tuple[int, ...]
    dtype: np.dtype
    geometry: tuple[int, ...]  # the same, then end_h and end_w (nbnet.kernels.pool)
    out_shape: tuple[int, ...]
    backend: Backend


class Geometry(NamedTuple):
    """Of windows on an image of one size."""

    out: tuple[int, int]  # output height and width
    window: tuple[int, ...]  # size_h, size_w, stride_h, stride_w, pad_top, pad_left
    end: tuple[int, int]  # height and width of the image and the padding below and to the right


def geometry(height: int, width: int, size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Geometry:
    """Where the windows lie; stride None means size."""
    size_h, size_w = checks.pair(size, "size")
    stride_h, stride_w = (size_h, size_w) if stride is None else checks.pair(stride, "stride")
    padding = checks.check_padding(padding)
    if not isinstance(padding, str) and (max(padding[0]) >= size_h or max(padding[1]) >= size_w):
        raise ArgumentError(
            f"padding={padding} with a window of {(size_h, size_w)}: some windows would hold no pixel; expected less than the window"
        )
    of_height, of_width = checks.each_axis(padding)
    out_h, pad_top, end_h = _along(height, size_h, stride_h, of_height, "height", ceil_mode)
    out_w, pad_left, end_w = _along(width, size_w, stride_w, of_width, "width", ceil_mode)
    return Geometry((out_h, out_w), (size_h, size_w, stride_h, stride_w, pad_top, pad_left), (end_h, end_w))


def _along(length: int, size: int, stride: int, padding: Any, axis: str, ceil_mode: bool) -> tuple[int, int, int]:
    """Along one axis: outputs, the padding before the image, and where the padding behind it ends."""
    out, before = checks.window(length, size, stride, padding, axis, ceil_mode=ceil_mode)
    if padding == "same":
        return out, before, max(length, (out - 1) * stride + size - before)
    return out, before, length + (0 if padding == "valid" else padding[1])


def max_pool2d_forward(
    x: Any, size: Any, stride: Any = None, padding: Any = "valid", *, ceil_mode: bool = False, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, MaxPool2DSaved]:
    """The largest value of each window; NaN where it contains one.

    Args:
        x: (N, H, W, C) float32 or float64. size, stride: a number of pixels, or (height, width); stride None means size.
        padding: "valid", "same" (TensorFlow's: ceil(H / stride) outputs), a number of pixels on every side, (height, width), or
            ((top, bottom), (left, right)). Padded pixels are never the maximum.
        ceil_mode: whether rows and columns at the end that do not fill a window get one, as far as it starts in the image or in the
            padding before it (as in PyTorch).
    Returns:
        y (N, OH, OW, C), and what max_pool2d_backward needs: x itself, in which backward finds the maxima again.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    out, window, _ = geometry(x.shape[1], x.shape[2], size, stride, padding, ceil_mode)
    y = be.empty((len(x), *out, x.shape[3]), x.dtype)
    be.kernel("pool.max_forward")(x, *window, y)
    return y, MaxPool2DSaved(x, window, y.shape, be)


def max_pool2d_backward(dy: Any, saved: MaxPool2DSaved) -> np.ndarray:
    """dx (N, H, W, C): each dy goes to the maximum of its window; of equal pixels, to the first in row-major order."""
    checks.from_training(saved)
    x, window, out_shape, be = saved
    dy = checks.shaped(dy, "dy", out_shape, x.dtype, be=be)
    dx = be.empty(x.shape, x.dtype)
    be.kernel("pool.max_backward")(dy, x, *window, dx)
    return dx


def avg_pool2d_forward(
    x: Any,
    size: Any,
    stride: Any = None,
    padding: Any = "valid",
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, AvgPool2DSaved]:
    """The mean of each window.

    Other arguments and returns are those of max_pool2d_forward; nothing of x is kept for backward.

    Args:
        count_include_pad: whether padded pixels count, as zeros (PyTorch's default); otherwise a mean is over real pixels alone (as in
            Keras). What ceil_mode adds behind the padding never counts.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    out, window, end = geometry(x.shape[1], x.shape[2], size, stride, padding, ceil_mode)
    numbers = (*window, *(end if count_include_pad else (0, 0)))
    y = be.empty((len(x), *out, x.shape[3]), x.dtype)
    be.kernel("pool.avg_forward")(x, *numbers, y)
    return y, AvgPool2DSaved(x.shape, x.dtype, numbers, y.shape, be)


def avg_pool2d_backward(dy: Any, saved: AvgPool2DSaved) -> np.ndarray:
    """dx (N, H, W, C): each dy is shared equally among the pixels of its window that count."""
    checks.from_training(saved)
    in_shape, dtype, numbers, out_shape, be = saved
    dy = checks.shaped(dy, "dy", out_shape, dtype, be=be)
    dx = be.empty(in_shape, dtype)
    be.kernel("pool.avg_backward")(dy, *numbers, dx)
    return dx
