"""Max and average pooling on NHWC images."""

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
    geometry: tuple[int, ...]
    out_shape: tuple[int, ...]
    backend: Backend


def geometry(height: int, width: int, size: Any, stride: Any, padding: Any) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Output height and width, and (size_h, size_w, stride_h, stride_w, pad_top, pad_left); stride None means size."""
    size_h, size_w = checks.pair(size, "size")
    stride_h, stride_w = (size_h, size_w) if stride is None else checks.pair(stride, "stride")
    padding = checks.check_padding(padding)
    if not isinstance(padding, str) and (max(padding[0]) >= size_h or max(padding[1]) >= size_w):
        raise ArgumentError(
            f"padding={padding} with a window of {(size_h, size_w)}: some windows would hold no pixel; expected less than the window"
        )
    of_height, of_width = checks.each_axis(padding)
    out_h, pad_top = checks.window(height, size_h, stride_h, of_height, "height")
    out_w, pad_left = checks.window(width, size_w, stride_w, of_width, "width")
    return (out_h, out_w), (size_h, size_w, stride_h, stride_w, pad_top, pad_left)


def max_pool2d_forward(
    x: Any, size: Any, stride: Any = None, padding: str | int = "valid", *, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, MaxPool2DSaved]:
    """The largest value of each window.

    Args:
        x: (N, H, W, C) float32 or float64. size, stride: a number of pixels, or (height, width); stride None means size.
        padding: "valid", "same" or a number of pixels; padded pixels are never the maximum.
    Returns:
        y (N, OH, OW, C), and what max_pool2d_backward needs: x itself, in which backward finds the maxima again.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    (out_h, out_w), window = geometry(x.shape[1], x.shape[2], size, stride, padding)
    y = be.empty((len(x), out_h, out_w, x.shape[3]), x.dtype)
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
    x: Any, size: Any, stride: Any = None, padding: str | int = "valid", *, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, AvgPool2DSaved]:
    """The mean of each window, over its real pixels: padding does not count (as in Keras).

    Arguments and returns are those of max_pool2d_forward; nothing of x is kept for backward.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    (out_h, out_w), window = geometry(x.shape[1], x.shape[2], size, stride, padding)
    y = be.empty((len(x), out_h, out_w, x.shape[3]), x.dtype)
    be.kernel("pool.avg_forward")(x, *window, 0, 0, y)
    return y, AvgPool2DSaved(x.shape, x.dtype, window, y.shape, be)


def avg_pool2d_backward(dy: Any, saved: AvgPool2DSaved) -> np.ndarray:
    """dx (N, H, W, C): each dy is shared equally among the real pixels of its window."""
    checks.from_training(saved)
    in_shape, dtype, window, out_shape, be = saved
    dy = checks.shaped(dy, "dy", out_shape, dtype, be=be)
    dx = be.empty(in_shape, dtype)
    be.kernel("pool.avg_backward")(dy, *window, 0, 0, dx)
    return dx
