"""Transposed convolution on NHWC images: a convolution's data gradient as forward, and the convolution as backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.functional.conv2d import Geometry, Window, check_groups, data_gradient, run, weights_gradient
from nbnet.functional.moments import partials
from nbnet.runtime.backend import Backend, get_backend


class ConvTranspose2DSaved(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    geometry: Geometry  # of the convolution from y to x
    out_shape: tuple[int, ...]
    has_bias: bool
    backend: Backend


def transposed_size(
    height: int, width: int, kernel: tuple[int, int], window: Window, output_padding: tuple[int, int]
) -> tuple[tuple[int, int], Geometry]:
    """Output height and width, and the geometry of the convolution from them to (height, width).

    Raises:
        ShapeError: nothing would be left. ArgumentError: output_padding is too large.
    """
    sizes, pad = [], []
    for axis, length in enumerate((height, width)):
        name, stride, extra = ("height", "width")[axis], window.stride[axis], output_padding[axis]
        extent = (kernel[axis] - 1) * window.dilation[axis] + 1
        padding = checks.each_axis(window.padding)[axis]
        if padding == "same":
            before, out = max(0, extent - stride) // 2, length * stride
            if extra:
                raise ArgumentError(f"output_padding={output_padding} with padding='same', which gives stride times the {name}: expected 0")
        else:
            before, after = (0, 0) if padding == "valid" else padding
            out = (length - 1) * stride + extent - before - after + extra
        if extra >= max(stride, window.dilation[axis]):
            raise ArgumentError(f"output_padding={output_padding}: expected less than the stride or the dilation, {window.stride}")
        if out < 1:
            raise ShapeError(f"a {name} of {length} with padding {padding} gives {out} outputs: expected less padding")
        sizes.append(out)
        pad.append(before)
    return (sizes[0], sizes[1]), Geometry(*window.stride, pad[0], pad[1], *window.dilation)


def conv_transpose2d_forward(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = "same",
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, ConvTranspose2DSaved]:
    """The transpose of a convolution from (OH, OW, O) to (H, W, I), which enlarges images by its stride.

    Args:
        x: (N, H, W, I) float32 or float64. weight: (KH, KW, O / groups, I), as Keras has it. bias: (O,) or None.
        stride, dilation: a number, or (height, width): of the convolution.
        padding: of the convolution; it is cut off the result. "same": OH = H * stride (Keras); "valid", a number, (height, width) or
            ((top, bottom), (left, right)): OH = (H - 1) * stride + (KH - 1) * dilation + 1 - top - bottom + output_padding (PyTorch).
        output_padding: rows and columns added at the bottom and right, less than the stride or the dilation; a number or (height, width).
        groups: as in conv2d_forward.
    Returns:
        y (N, OH, OW, O), and what conv_transpose2d_backward needs.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    window = Window.checked(stride, padding, dilation, groups)
    return upsample(x, weight, bias, window, whole_pair(output_padding), get_backend(backend))


def upsample(
    x: Any, weight: Any, bias: Any, window: Window, output_padding: tuple[int, int], be: Backend
) -> tuple[np.ndarray, ConvTranspose2DSaved]:
    """conv_transpose2d_forward with checked numbers."""
    x = checks.floats(x, "x", 4, be=be)
    weight = checks.floats(weight, "weight", 4, x.dtype, be=be)
    kernel_h, kernel_w, depth, inputs = weight.shape
    outputs = depth * window.groups
    if inputs != x.shape[3]:
        raise ShapeError(f"x has {x.shape[3]} channels, but weight has shape {weight.shape}: expected (KH, KW, filters, {x.shape[3]})")
    check_groups(window.groups, inputs, outputs)
    size, geometry = transposed_size(x.shape[1], x.shape[2], (kernel_h, kernel_w), window, output_padding)
    y = be.empty((len(x), *size, outputs), x.dtype)
    data_gradient(x, weight, geometry, be, y)
    if bias is not None:
        bias = checks.shaped(bias, "bias", (outputs,), x.dtype, be=be)
        rows, one = y.reshape(-1, outputs), be.empty((outputs,), x.dtype)
        zero = be.no_bias(outputs, x.dtype)
        be.channelwise(_next, [one], zero)
        be.kernel("batchnorm.apply")(rows, zero, one, bias, 1.0, rows)  # (y - 0) * 1 + bias
    return y, ConvTranspose2DSaved(x, weight, geometry, y.shape, bias is not None, be)


def conv_transpose2d_backward(
    dy: Any, saved: ConvTranspose2DSaved, *, dweight: Any = None, dbias: Any = None, need_dx: bool = True
) -> tuple[Any, Any, Any]:
    """Gradients of conv_transpose2d_forward.

    Args:
        dy: (N, OH, OW, O). dweight, dbias: arrays to write the gradients into. need_dx: False skips dx, which is then None.
    Returns:
        dx (N, H, W, I), dweight (KH, KW, O / groups, I), dbias (O,), or None where there was no bias.
    """
    checks.from_training(saved)
    x, weight, geometry, out_shape, has_bias, be = saved
    dy = checks.shaped(dy, "dy", out_shape, x.dtype, be=be)
    dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
    weights_gradient(dy, x, geometry, be, dweight, checks.output(None, "dbias", (0,), x.dtype, be=be))
    outputs = out_shape[3]
    if has_bias:
        dbias = checks.output(dbias, "dbias", (outputs,), x.dtype, be=be)
        rows, (mean, m2) = dy.reshape(-1, outputs), be.vectors(2, outputs, np.float64)
        be.kernel("batchnorm.moments")(rows, None, partials(be, *rows.shape), mean, m2)
        be.channelwise(_times, [dbias], mean, float(len(rows)))
    dx = run(dy, weight, None, geometry, x.shape, be)[0] if need_dx else None
    return dx, dweight, dbias if has_bias else None


def whole_pair(value: Any) -> tuple[int, int]:
    """output_padding for both axes."""
    values = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, value)
    return checks.whole(values[0], "output_padding", 0), checks.whole(values[1], "output_padding", 0)


def _next(zero: Any) -> Any:
    return (zero + 1,)


def _times(mean: Any, count: Any) -> Any:
    return (mean * count,)
