"""Resampling of NHWC images: each output pixel is a sum of a few input pixels with weights, separately along height and width.

Padding, cropping, upsampling and adaptive average pooling differ only in their tables of taps.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.runtime.backend import Backend, get_backend

PAD_MODES = ("zeros", "reflect", "edge")
UPSAMPLE_MODES = ("nearest", "bilinear")


class Taps:
    """Where the outputs along one axis come from: output i is the sum over a of weight[i, a] * input[index[i, a]].

    Args:
        index: (outputs, A) whole numbers below `length`; -1 is no tap. An output without taps is 0, whatever the inputs are.
        weight: (outputs, A) numbers. An output with one tap of weight 1 is a copy, bit for bit.
        length: of the input.
    Raises:
        ShapeError, ArgumentError: the tables do not fit.
    """

    def __init__(self, index: Any, weight: Any, length: int) -> None:
        index, weight = np.asarray(index), np.asarray(weight, np.float64)
        if index.ndim != 2 or index.size == 0 or index.shape != weight.shape:
            raise ShapeError(f"index has shape {index.shape} and weight {weight.shape}, expected both (outputs, taps)")
        if index.dtype.kind not in "iu" or index.min() < -1 or index.max() >= length:
            raise ArgumentError(
                f"index holds {index.dtype} from {index.min()} to {index.max()}, expected whole numbers from -1 to {length - 1}"
            )
        last = np.argsort(index < 0, axis=1, kind="stable")  # kernels expect -1 after all taps
        self.index = np.take_along_axis(index, last, axis=1).astype(np.int64)
        self.weight = np.take_along_axis(weight, last, axis=1)
        self.length = int(length)
        self._on_gpu: tuple[Any, Any] | None = None

    def __len__(self) -> int:
        """How many outputs."""
        return len(self.index)

    def matrix(self) -> np.ndarray:
        """The weights as a matrix (outputs, length)."""
        matrix = np.zeros((len(self), self.length))
        for row, index, weight in zip(matrix, self.index, self.weight):
            np.add.at(row, index[index >= 0], weight[index >= 0])
        return matrix

    @cached_property
    def transposed(self) -> Taps:
        """The taps of the gradient: input j receives weight[i, a] from each output i with index[i, a] == j."""
        outputs, taps = np.nonzero(self.index >= 0)
        inputs = self.index[outputs, taps]
        order = np.argsort(inputs, kind="stable")
        inputs, outputs, taps = inputs[order], outputs[order], taps[order]
        counts = np.bincount(inputs, minlength=self.length)
        place = np.arange(len(inputs)) - np.repeat(np.cumsum(counts) - counts, counts)
        index = np.full((self.length, max(1, int(counts.max()))), -1)
        weight = np.zeros(index.shape)
        index[inputs, place], weight[inputs, place] = outputs, self.weight[outputs, taps]
        return Taps(index, weight, len(self))

    def on(self, be: Backend) -> tuple[Any, Any]:
        """The tables where the backend's kernels read them."""
        if be.name != "cuda":
            return self.index, self.weight
        if self._on_gpu is None:
            self._on_gpu = be.place(self.index), be.place(self.weight)
        return self._on_gpu


class ResampleSaved(NamedTuple):
    in_shape: tuple[int, ...]
    dtype: np.dtype
    rows: Taps
    columns: Taps
    backend: Backend


def resample_forward(x: Any, rows: Taps, columns: Taps, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, ResampleSaved]:
    """y[n, i, j, c] = sum over a, b of rows.weight[i, a] * columns.weight[j, b] * x[n, rows.index[i, a], columns.index[j, b], c]

    Args:
        x: (N, H, W, C) float32 or float64. rows, columns: the taps along the height and the width; sums are in float64 on the CPU.
    Returns:
        y (N, len(rows), len(columns), C), and what resample_backward needs: nothing of x.
    Raises:
        ShapeError, DTypeError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    if (rows.length, columns.length) != x.shape[1:3]:
        raise ShapeError(f"x has shape {x.shape}, expected (N, {rows.length}, {columns.length}, C), which the taps are for")
    y = be.empty((len(x), len(rows), len(columns), x.shape[3]), x.dtype)
    be.kernel("resample.gather")(x, *rows.on(be), *columns.on(be), y)
    return y, ResampleSaved(x.shape, x.dtype, rows, columns, be)


def resample_backward(dy: Any, saved: ResampleSaved) -> np.ndarray:
    """dx (N, H, W, C): the transposed map, of dy with the shape of y."""
    checks.from_training(saved)
    in_shape, dtype, rows, columns, be = saved
    dy = checks.shaped(dy, "dy", (in_shape[0], len(rows), len(columns), in_shape[3]), dtype, be=be)
    dx = be.empty(in_shape, dtype)
    be.kernel("resample.gather")(dy, *rows.transposed.on(be), *columns.transposed.on(be), dx)
    return dx


# ----------------------------------------------------------------------------------------------------- padding


def pad2d_forward(x: Any, padding: Any, mode: str = "zeros", *, backend: str | Backend = "parallel") -> tuple[np.ndarray, ResampleSaved]:
    """x with rows and columns added around it.

    Args:
        x: (N, H, W, C) float32 or float64.
        padding: a number of pixels on every side, (height, width), or ((top, bottom), (left, right)). A negative number crops.
        mode: "zeros", "reflect" (the image mirrored in its outermost pixels) or "edge" (its outermost pixels repeated).
    Returns:
        y (N, top + H + bottom, left + W + right, C), and what pad2d_backward needs: nothing of x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or a mirrored image is too small.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    rows, columns = padded(x.shape[1], x.shape[2], checks.sides(padding, "padding", least=-math.inf), mode)
    return resample_forward(x, rows, columns, backend=be)


def padded(height: int, width: int, padding: checks.Sides, mode: str) -> tuple[Taps, Taps]:
    """The taps of pad2d_forward."""
    if mode not in PAD_MODES:
        raise ArgumentError(unknown("padding mode", mode, PAD_MODES))
    return _padded(height, *padding[0], mode, "height"), _padded(width, *padding[1], mode, "width")


@lru_cache(1024)
def _padded(length: int, before: int, after: int, mode: str, axis: str) -> Taps:
    outputs = before + length + after
    if outputs < 1:
        raise ShapeError(f"an image of {axis} {length} with {before} and {after} more pixels has none left: expected at least 1")
    if mode == "reflect" and max(before, after) >= length:
        raise ShapeError(f"an image of {axis} {length} reflects up to {length - 1} pixels, got {max(before, after)}: use mode='edge'")
    index = np.arange(-before, length + after)
    if mode == "zeros":
        index[(index < 0) | (index >= length)] = -1
    elif mode == "edge":
        index = index.clip(0, length - 1)
    else:
        index = length - 1 - np.abs(length - 1 - np.abs(index))
    return Taps(index[:, None], np.ones((outputs, 1)), length)


# -------------------------------------------------------------------------------------------------- upsampling


def upsample2d_forward(
    x: Any, factor: Any, mode: str = "nearest", *, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, ResampleSaved]:
    """Enlarge an image by a whole factor.

    Args:
        x: (N, H, W, C) float32 or float64. factor: one for both axes, or (height, width).
        mode: "nearest" repeats pixels. "bilinear" interpolates between the centres of pixels, and repeats the edge beyond the outermost
            (half-pixel centres: align_corners=False in PyTorch, UpSampling2D in Keras).
    Returns:
        y (N, H * factor, W * factor, C), and what upsample2d_backward needs: nothing of x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    factor_h, factor_w = checks.pair(factor, "factor")
    check_upsampling(mode)
    return resample_forward(x, upsampled(x.shape[1], factor_h, mode), upsampled(x.shape[2], factor_w, mode), backend=be)


def check_upsampling(mode: Any) -> None:
    if mode not in UPSAMPLE_MODES:
        raise ArgumentError(unknown("upsampling mode", mode, UPSAMPLE_MODES))


@lru_cache(1024)
def upsampled(length: int, factor: int, mode: str) -> Taps:
    output = np.arange(length * factor)
    if mode == "nearest":
        return Taps(output[:, None] // factor, np.ones((len(output), 1)), length)
    at = ((output + 0.5) / factor - 0.5).clip(0, length - 1)
    first = np.floor(at).astype(np.int64)
    share = at - first
    index = np.stack([first, np.where(share > 0, first + 1, -1)], axis=1)
    return Taps(index, np.stack([1 - share, share], axis=1), length)


# ------------------------------------------------------------------------------------- adaptive average pooling


def adaptive_avg_pool2d_forward(x: Any, output_size: Any, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, ResampleSaved]:
    """The means of a given number of windows.

    Output i of O is the mean of pixels floor(i * H / O) to ceil((i + 1) * H / O), as in PyTorch: windows differ by one pixel, and overlap,
    where O does not divide H.

    Args:
        x: (N, H, W, C) float32 or float64. output_size: one for both axes, or (height, width); it may be larger than the image.
    Returns:
        y (N, *output_size, C), and what adaptive_avg_pool2d_backward needs: nothing of x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 4, be=be)
    out_h, out_w = checks.pair(output_size, "output_size")
    return resample_forward(x, bins(x.shape[1], out_h), bins(x.shape[2], out_w), backend=be)


@lru_cache(1024)
def bins(length: int, outputs: int) -> Taps:
    output = np.arange(outputs)
    first, last = output * length // outputs, -(-(output + 1) * length // outputs)
    index = first[:, None] + np.arange((last - first).max())
    index[index >= last[:, None]] = -1
    return Taps(index, np.broadcast_to(1 / (last - first)[:, None], index.shape), length)


pad2d_backward = upsample2d_backward = adaptive_avg_pool2d_backward = resample_backward
