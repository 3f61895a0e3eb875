"""Two-dimensional convolution on NHWC images."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.moments import Stats
from nbnet.kernels import conv2d as contract
from nbnet.runtime.backend import Backend, get_backend


class Conv2DSaved(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    geometry: tuple[int, int, int, int]  # stride_h, stride_w, pad_top, pad_left
    out_shape: tuple[int, ...]
    backend: Backend


@lru_cache(1024)
def _plan(
    x: tuple[int, ...], weight: tuple[int, ...], stride: tuple[int, int], padding: str | int
) -> tuple[tuple[int, int, int, int], tuple[int, ...], contract.Scratch]:
    """Geometry, shape of y and sizes of the scratch, for x and weight of these shapes."""
    (kernel_h, kernel_w, inputs, outputs), (stride_h, stride_w) = weight, stride
    if inputs != x[3]:
        raise ShapeError(f"x has {x[3]} channels, but weight has shape {weight}: expected (KH, KW, {x[3]}, filters)")
    out_h, pad_top = checks.window(x[1], kernel_h, stride_h, padding, "height")
    out_w, pad_left = checks.window(x[2], kernel_w, stride_w, padding, "width")
    sizes = contract.scratch(x[0], out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, inputs)
    return (stride_h, stride_w, pad_top, pad_left), (x[0], out_h, out_w, outputs), sizes


def conv2d_forward(
    x: Any, weight: Any, bias: Any = None, *, stride: Any = 1, padding: str | int = "same", backend: str | Backend = "parallel"
) -> tuple[np.ndarray, Conv2DSaved]:
    """Cross-correlate images with a bank of filters: what deep learning calls convolution.

    NaN and infinity reach the results that depend on them, and no others, on every backend. On serial and parallel, rounding errors are
    relative to the largest input of a result and of its neighbours (minimal filtering: nbnet.kernels.conv2d).

    Args:
        x: (N, H, W, I) float32 or float64. weight: (KH, KW, I, O). bias: (O,) or None.
        stride: a number of pixels, or (height, width).
        padding: "same" (ceil(H / stride) outputs; an odd pixel goes to the bottom and right, as in TensorFlow), "valid", or
            a number of zero pixels on every side.
    Returns:
        y (N, OH, OW, O), and what conv2d_backward needs.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    y, saved, _ = convolve(x, weight, bias, stride, padding, get_backend(backend))
    return y, saved


def convolve(
    x: Any, weight: Any, bias: Any, stride: Any, padding: str | int, be: Backend, slope: float = 1.0, stats: bool = False
) -> tuple[np.ndarray, Conv2DSaved, Stats | None]:
    """conv2d_forward, with what the kernel can do in the same pass (see nbnet.functional.fused).

    Args:
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 is ReLU.
        stats: whether to take the statistics of y's channels, the third result.
    """
    x = checks.floats(x, "x", 4, be=be)
    weight = checks.floats(weight, "weight", 4, x.dtype, be=be)
    checks.check_padding(padding)
    geometry, out_shape, sizes = _plan(x.shape, weight.shape, checks.pair(stride, "stride"), padding)
    outputs = out_shape[3]
    bias = be.no_bias(outputs, x.dtype) if bias is None else checks.shaped(bias, "bias", (outputs,), x.dtype, be=be)

    y = be.empty(out_shape, x.dtype)
    packed, strips = be.scratch("packed", sizes.packed, x.dtype), be.scratch("strips", (be.threads, sizes.strip), x.dtype)
    partials = be.scratch("partials", (sizes.chunks if stats else 0, 3, outputs), np.float64)
    mean, m2 = be.vectors(2, outputs, np.float64)
    statistics = (mean, m2) if stats or be.name != "cuda" else (None, None)
    be.kernel("conv2d.forward")(x, weight, bias, slope, *geometry, packed, strips, y, partials, *statistics)
    taken = Stats(mean, m2, float(y.size // outputs)) if stats else None
    return y, Conv2DSaved(x, weight, geometry, out_shape, be), taken


def conv2d_backward(
    dy: Any,
    saved: Conv2DSaved,
    *,
    dweight: Any = None,
    dbias: Any = None,
    dx: Any = None,
    need_dx: bool = True,
    need_dweight: bool = True,
    need_dbias: bool = True,
) -> tuple[Any, Any, Any]:
    """Gradients of conv2d_forward.

    Args:
        dy: (N, OH, OW, O). dweight, dbias, dx: arrays to write the gradients into. need_dx: False skips dx (it is then None),
            which the first layer of a network does not need. need_dweight: False skips dweight and dbias, for weights
            that are not trained. need_dbias: False skips dbias alone, for a convolution without a bias.
    Returns:
        dx (N, H, W, I), dweight (KH, KW, I, O), dbias (O,).
    """
    checks.from_training(saved)
    x, weight, geometry, out_shape, be = saved
    kernel_h, kernel_w, inputs, outputs = weight.shape
    dy = checks.shaped(dy, "dy", out_shape, x.dtype, be=be)
    (_, out_h, out_w, _), (_, height, width, _), (stride_h, stride_w, _, _) = dy.shape, x.shape, geometry
    if need_dweight:
        dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
        dbias = checks.output(dbias, "dbias", (outputs if need_dbias else 0,), x.dtype, be=be)
        sizes = contract.scratch(len(x), out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, inputs)
        strips = be.scratch("strips", (be.threads, sizes.strip), x.dtype)
        parts = contract.partial_sums(sizes.chunks, dy.size // outputs)
        partials = be.scratch("partials", (parts, kernel_h * kernel_w * inputs + 1, outputs), x.dtype)
        be.kernel("conv2d.backward_weights")(x, dy, *geometry, strips, partials, dweight, dbias)
    else:
        dweight = dbias = None
    if not need_dx:
        dx = None
    else:
        dx = be.empty(x.shape, x.dtype) if dx is None else checks.output(dx, "dx", x.shape, x.dtype, be=be)
        turned = be.scratch("turned", (kernel_h * kernel_w * (outputs + 1), inputs), x.dtype)
        sizes = contract.backward_data_scratch(len(x), height, width, inputs, kernel_h, kernel_w, stride_h, stride_w, outputs)
        packed, strips = be.scratch("packed", sizes.packed, x.dtype), be.scratch("strips", (be.threads, sizes.strip), x.dtype)
        be.kernel("conv2d.backward_data")(dy, weight, *geometry, turned, packed, strips, dx)
    return dx, dweight, dbias if need_dbias else None
