"""Two-dimensional convolution on NHWC images."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.functional.moments import Stats
from nbnet.functional.resample import PAD_MODES, ResampleSaved, Taps, padded, resample_backward, resample_forward
from nbnet.kernels import conv2d as contract
from nbnet.kernels import depthwise
from nbnet.runtime.backend import Backend, get_backend


class Window(NamedTuple):
    """How a kernel moves over an image: checked numbers, for both axes."""

    stride: tuple[int, int] = (1, 1)
    padding: checks.Padding = "same"
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"

    @classmethod
    def checked(cls, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any = "zeros") -> Window:
        if padding_mode not in PAD_MODES:
            raise ArgumentError(unknown("padding_mode", padding_mode, PAD_MODES))
        stride, dilation = checks.pair(stride, "stride"), checks.pair(dilation, "dilation")
        return cls(stride, checks.check_padding(padding), dilation, checks.whole(groups, "groups"), padding_mode)


class Geometry(NamedTuple):
    """The numbers that the kernels take."""

    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    dilation_h: int
    dilation_w: int

    @property
    def steps(self) -> tuple[int, int, int, int]:
        return self.stride_h, self.stride_w, self.dilation_h, self.dilation_w


class Conv2DSaved(NamedTuple):
    x: np.ndarray  # padded, where it is not padded with zeros
    weight: np.ndarray
    geometry: Geometry
    out_shape: tuple[int, ...]
    backend: Backend
    padded: ResampleSaved | None = None  # of that padding


def out_size(height: int, width: int, kernel: tuple[int, int], window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Output height and width, and the padding above and to the left.

    Raises:
        ShapeError: the kernel does not fit the image.
    """
    of_height, of_width = checks.each_axis(window.padding)
    out_h, top = checks.window(height, kernel[0], window.stride[0], of_height, "height", window.dilation[0])
    out_w, left = checks.window(width, kernel[1], window.stride[1], of_width, "width", window.dilation[1])
    if window.padding_mode != "zeros":
        taps_of_padding((height, width), kernel, window, (out_h, out_w), (top, left))
    return (out_h, out_w), (top, left)


@lru_cache(1024)
def taps_of_padding(
    image: tuple[int, int], kernel: tuple[int, int], window: Window, out: tuple[int, int], pad: tuple[int, int]
) -> tuple[Taps, Taps]:
    """The taps that pad images as far as the windows reach.

    Raises:
        ShapeError: the images are too small to be mirrored that far.
    """
    sides = []
    for length, size, stride, dilation, outputs, before in zip(image, kernel, window.stride, window.dilation, out, pad):
        end = (outputs - 1) * stride + contract.extent(size, dilation)
        sides.append((before, max(0, end - before - length)))
    return padded(*image, (sides[0], sides[1]), window.padding_mode)


def check_groups(groups: int, inputs: int, outputs: int) -> None:
    """Check that groups divide the channels."""
    if inputs % groups or outputs % groups:
        raise ShapeError(f"groups={groups} does not divide {inputs} input and {outputs} output channels: expected a divisor of both")


def is_depthwise(inputs: int, outputs: int, groups: int) -> bool:
    """Whether each output channel has one input channel, its own: the kernels are then those of nbnet.kernels.depthwise."""
    return groups == inputs == outputs > 1


def depends_on_rows(kernel: tuple[int, int]) -> bool:
    """Whether the number of images decides, besides their shape, which algorithm computes y and dx: a row of them may then have other
    bits in a larger batch. All other convolutions, and dense layers, give a row the same bits in every batch on the compiled backends."""
    return kernel[0] == 1 and contract.NESTED_TAPS <= kernel[1] <= contract.NESTED_TILE


@lru_cache(1024)
def _plan(x: tuple[int, ...], weight: tuple[int, ...], window: Window) -> tuple[Geometry, tuple[int, ...]]:
    """Geometry and shape of y, for x and weight of these shapes."""
    kernel_h, kernel_w, depth, outputs = weight
    check_groups(window.groups, x[3], outputs)
    if depth * window.groups != x[3]:
        of = f" and groups={window.groups}" if window.groups > 1 else ""
        expected = f"(KH, KW, {x[3] // window.groups}, filters)"
        raise ShapeError(f"x has {x[3]} channels, but weight has shape {weight}{of}: expected {expected}")
    (out_h, out_w), pad = out_size(x[1], x[2], (kernel_h, kernel_w), window)
    return Geometry(*window.stride, *pad, *window.dilation), (x[0], out_h, out_w, outputs)


def conv2d_forward(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = "same",
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, Conv2DSaved]:
    """Cross-correlate images with a bank of filters: what deep learning calls convolution.

    NaN and infinity reach the results that depend on them, and no others, on every backend. On serial and parallel, rounding errors are
    relative to the largest input of a result and of its neighbours (minimal filtering: nbnet.kernels.conv2d).

    Args:
        x: (N, H, W, I) float32 or float64. weight: (KH, KW, I / groups, O). bias: (O,) or None.
        stride: a number of pixels, or (height, width).
        padding: of the image: "same", "valid" (none), a number of pixels on every side, (height, width), or
            ((top, bottom), (left, right)). "same" is TensorFlow's: ceil(H / stride) outputs, and an odd pixel goes to the bottom and right.
            With stride 2, an even H and a 3 x 3 kernel that pads ((0, 1), (0, 1)), where PyTorch's padding=1 pads ((1, 1), (1, 1)).
        dilation: the distance of the kernel's pixels, or (height, width).
        groups: the channels are cut into this many groups, and output channels of a group depend on its input channels alone: 1 is a
            convolution, I with O = I a depthwise one. TensorFlow's depthwise weight (KH, KW, C, M) is reshaped to (KH, KW, 1, C * M).
        padding_mode: what the padding holds: "zeros", "reflect" or "edge" (see pad2d_forward).
    Returns:
        y (N, OH, OW, O), and what conv2d_backward needs.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    y, saved, _ = convolve(x, weight, bias, Window.checked(stride, padding, dilation, groups, padding_mode), get_backend(backend))
    return y, saved


def convolve(
    x: Any, weight: Any, bias: Any, window: Window, be: Backend, slope: float = 1.0, stats: bool = False
) -> tuple[np.ndarray, Conv2DSaved, Stats | None]:
    """conv2d_forward, with what the kernel can do in the same pass (see nbnet.functional.fused).

    Args:
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 is ReLU.
        stats: whether to take the statistics of y's channels, the third result.
    """
    x = checks.floats(x, "x", 4, be=be)
    weight = checks.floats(weight, "weight", 4, x.dtype, be=be)
    geometry, out_shape = _plan(x.shape, weight.shape, window)
    of_padding = None
    if window.padding_mode != "zeros":
        taps = taps_of_padding(x.shape[1:3], weight.shape[:2], window, out_shape[1:3], (geometry.pad_top, geometry.pad_left))
        x, of_padding = resample_forward(x, *taps, backend=be)
        geometry = geometry._replace(pad_top=0, pad_left=0)
    y, taken = run(x, weight, bias, geometry, out_shape, be, slope, stats)
    return y, Conv2DSaved(x, weight, geometry, out_shape, be, of_padding), taken


def run(
    x: Any, weight: Any, bias: Any, geometry: Geometry, out_shape: tuple[int, ...], be: Backend, slope: float = 1.0, stats: bool = False
) -> tuple[Any, Stats | None]:
    """The convolution itself, of checked arrays (the bias is checked here), and the statistics of its channels."""
    (kernel_h, kernel_w, depth, _), (images, out_h, out_w, outputs), inputs = weight.shape, out_shape, x.shape[3]
    bias = be.no_bias(outputs, x.dtype) if bias is None else checks.shaped(bias, "bias", (outputs,), x.dtype, be=be)
    y, (mean, m2) = be.empty(out_shape, x.dtype), be.vectors(2, outputs, np.float64)
    statistics = (mean, m2) if stats or be.name != "cuda" else (None, None)
    if is_depthwise(inputs, outputs, inputs // depth):
        count = depthwise.chunk_count(images, out_h, out_w, outputs, kernel_h * kernel_w)
        partials = be.scratch("partials", (count if stats else 0, 3, outputs), np.float64)
        be.kernel("depthwise.forward")(x, _per_channel(weight), bias, slope, *geometry, y, partials, *statistics)
    else:
        sizes = contract.scratch(images, out_h, out_w, outputs, kernel_h, kernel_w, *geometry.steps, inputs, inputs // depth)
        partials = be.scratch("partials", (sizes.chunks if stats else 0, 3, outputs), np.float64)
        packed, strips = be.scratch("packed", sizes.packed, x.dtype), be.scratch("strips", (be.threads, *sizes.strip), x.dtype)
        be.kernel("conv2d.forward")(x, weight, bias, slope, *geometry, packed, False, strips, y, partials, *statistics)
    return y, Stats(mean, m2, float(y.size // outputs)) if stats else None


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
        dy: (N, OH, OW, O). dweight, dbias, dx: arrays to write the gradients into; dx only where the padding is zeros. need_dx: False
            skips dx (it is then None), which the first layer of a network does not need. need_dweight: False skips dweight and dbias,
            for weights that are not trained. need_dbias: False skips dbias alone, for a convolution without a bias.
    Returns:
        dx (N, H, W, I), dweight (KH, KW, I / groups, O), dbias (O,).
    """
    checks.from_training(saved)
    x, weight, _, out_shape, be, of_padding = saved
    if dx is not None and of_padding is not None:
        raise ArgumentError("dx is an array to write to, expected None: only with padding_mode='zeros' is the gradient written to it")
    dy = checks.shaped(dy, "dy", out_shape, x.dtype, be=be)
    if need_dweight:
        dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
        dbias = checks.output(dbias, "dbias", (out_shape[3] if need_dbias else 0,), x.dtype, be=be)
        weights_gradient(x, dy, saved.geometry, be, dweight, dbias)
    else:
        dweight = dbias = None
    if not need_dx:
        dx = None
    else:
        dx = be.empty(x.shape, x.dtype) if dx is None else checks.output(dx, "dx", x.shape, x.dtype, be=be)
        data_gradient(dy, weight, saved.geometry, be, dx)
        dx = dx if of_padding is None else resample_backward(dx, of_padding)
    return dx, dweight, dbias if need_dbias else None


def data_gradient(dy: Any, weight: Any, geometry: Geometry, be: Backend, dx: Any) -> None:
    """dx = the transpose of the convolution by weight, applied to dy."""
    kernel_h, kernel_w, depth, outputs = weight.shape
    images, height, width, inputs = dx.shape
    groups = inputs // depth
    if is_depthwise(inputs, outputs, groups):
        be.kernel("depthwise.backward_data")(dy, _per_channel(weight), *geometry, dx)
        return
    turned = be.scratch("turned", (kernel_h * kernel_w * (outputs // groups + 1), inputs), dx.dtype)
    sizes = contract.backward_data_scratch(images, height, width, inputs, kernel_h, kernel_w, *geometry.steps, outputs, groups)
    packed, strips = be.scratch("packed", sizes.packed, dx.dtype), be.scratch("strips", (be.threads, *sizes.strip), dx.dtype)
    be.kernel("conv2d.backward_data")(dy, weight, *geometry, turned, packed, strips, dx)


def weights_gradient(x: Any, dy: Any, geometry: Geometry, be: Backend, dweight: Any, dbias: Any) -> None:
    """The gradients of the weights and, unless its size is 0, of the bias, for a convolution of x whose result has the gradient dy."""
    kernel_h, kernel_w, depth, outputs = dweight.shape
    inputs, groups = x.shape[3], x.shape[3] // depth
    images, out_h, out_w, _ = dy.shape
    if is_depthwise(inputs, outputs, groups):
        taps = kernel_h * kernel_w
        count = depthwise.chunk_count(images, out_h, out_w, outputs, taps)
        partials = be.scratch("partials", (contract.partial_sums(count, dy.size // outputs), taps + 1, outputs), np.float64)
        be.kernel("depthwise.backward_weights")(x, dy, *geometry, partials, _per_channel(dweight), dbias)
        return
    sizes = contract.scratch(images, out_h, out_w, outputs, kernel_h, kernel_w, *geometry.steps, inputs, groups)
    strips = be.scratch("strips", (be.threads, *sizes.strip), x.dtype)
    parts = contract.partial_sums(sizes.chunks, dy.size // outputs)
    partials = be.scratch("partials", (parts, kernel_h * kernel_w * depth + 1, outputs), x.dtype)
    be.kernel("conv2d.backward_weights")(x, dy, *geometry, strips, partials, dweight, dbias)


def _per_channel(weight: Any) -> Any:
    """(KH, KW, 1, C) as (KH, KW, C)."""
    return weight.reshape(weight.shape[0], weight.shape[1], weight.shape[3])
