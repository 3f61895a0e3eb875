"""Operators that move a window, pad, cut or resize, as layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet import layers as nb
from nbnet.errors import OnnxError
from nbnet.functional.resample import bins, upsampled
from nbnet.layers import Layer
from nbnet.onnx.folding_constants import slices
from nbnet.onnx.graph import Node
from nbnet.onnx.reader import Reader, Rule

LONGEST = 1 << 16  # pixels of a kernel, a stride, a side of padding
WIDEST = 1 << 20  # pixels of an image that is padded, cut or resized, for which tables are made
Pairs = list[tuple[int, int]]


def numbers(node: Node, name: str, count: int, default: int | None = None, least: int = 1) -> list[int]:
    """An attribute with a number for each axis of the image."""
    values: list[int] | None = node.ints(name, None if default is None else [default] * count)
    if values is None or len(values) != count or not all(least <= n < LONGEST for n in values):
        raise OnnxError(f"{name} is {values}, expected {count} whole numbers, {least} to {LONGEST - 1}")
    return values


def pairs(values: Sequence[int]) -> Pairs:
    """Padding as ONNX writes it, of each axis before and after."""
    count = len(values) // 2
    return list(zip(values[:count], values[count:]))


def padding(node: Node, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """pads or auto_pad as nbnet's padding of images or sequences."""
    auto = node.text("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        return "same"
    if auto == "SAME_LOWER":
        found = []
        for n, k, s, d in zip(sizes, kernel, stride, dilation):
            extra = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            found.append((extra - extra // 2, extra // 2))
    elif auto in ("NOTSET", "VALID"):
        found = pairs(numbers(node, "pads", 2 * len(sizes), 0, 0)) if auto == "NOTSET" else [(0, 0)] * len(sizes)
    else:
        raise OnnxError(f"auto_pad is {auto!r}, expected NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    return in_nbnet(found)


def in_nbnet(found: Pairs) -> Any:
    """The shortest form of padding that nbnet takes for images or sequences."""
    if not any(map(any, found)):
        return "valid"
    if all(pair == (found[0][0], found[0][0]) for pair in found):
        return found[0][0]
    return tuple(found) if len(found) > 1 else found[0]


def plain(values: Sequence[int]) -> Any:
    """One number where all are the same."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def _window(r: Reader, node: Node, weight: np.ndarray) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The sizes of the image, and the arguments of a convolution."""
    sizes = r.channels(node, (1, 2))
    rank, kernel = len(sizes), weight.shape[2:]
    if len(kernel) != rank or node.ints("kernel_shape", list(kernel)) != list(kernel):
        raise OnnxError(f"weights of shape {weight.shape} for an array of shape {r.at.shape}, expected a kernel with {rank} axes")
    stride, dilation = numbers(node, "strides", rank, 1), numbers(node, "dilations", rank, 1)
    options = {"stride": plain(stride), "padding": padding(node, sizes, kernel, stride, dilation), "dilation": plain(dilation)}
    return sizes, options


def conv(r: Reader, node: Node) -> None:
    weight = r.weight(node, 1)
    sizes, options = _window(r, node, weight)
    rank, channels, groups = len(sizes), r.at.shape[0], node.int("group", 1)
    filters = weight.shape[0]
    if groups < 1 or weight.shape[1] * groups != channels or filters % groups:
        raise OnnxError(f"weights of shape {weight.shape} and group {groups} for {channels} channels: they do not fit")
    has_bias = r.constant(node, 2) is not None
    arrays = {"bias": r.weight(node, 2, (filters,))} if has_bias else {}
    weight = np.moveaxis(weight, (0, 1), (-1, -2))
    kernel: Any = plain(weight.shape[:rank])
    if rank == 2 and 1 < groups == channels:
        layer: Layer = nb.DepthwiseConv2D(kernel, use_bias=has_bias, multiplier=filters // channels, **options)
        weight = weight.reshape(*weight.shape[:2], channels, -1)
    else:
        layer = (nb.Conv1D, nb.Conv2D)[rank - 1](filters, kernel, use_bias=has_bias, groups=groups, **options)
    r.add(layer, weight=weight, **arrays)


def conv_transpose(r: Reader, node: Node) -> None:
    weight = r.weight(node, 1)
    sizes, options = _window(r, node, weight)
    rank, channels, groups = len(sizes), r.at.shape[0], node.int("group", 1)
    filters = weight.shape[1] * groups
    if groups < 1 or weight.shape[0] != channels or channels % groups:
        raise OnnxError(f"weights of shape {weight.shape} and group {groups} for {channels} channels: they do not fit")
    extra = numbers(node, "output_padding", rank, 0, 0)
    auto, wanted = node.text("auto_pad", "NOTSET"), node.ints("output_shape")
    if wanted is not None or auto.startswith("SAME"):
        stride, dilation = numbers(node, "strides", rank, 1), numbers(node, "dilations", rank, 1)
        wanted = [n * s for n, s in zip(sizes, stride)] if wanted is None else wanted[-rank:]
        found = []
        for i, (n, s, k, d, out) in enumerate(zip(sizes, stride, weight.shape[2:], dilation, wanted, strict=True)):
            total = s * (n - 1) + extra[i] + (k - 1) * d + 1 - out
            extra[i] += max(0, -total)
            small, large = max(0, total) // 2, -(-max(0, total) // 2)
            found.append((small, large) if auto == "SAME_UPPER" else (large, small))
        options["padding"] = in_nbnet(found)
    has_bias = r.constant(node, 2) is not None
    arrays = {"bias": r.weight(node, 2, (filters,))} if has_bias else {}
    weight = np.moveaxis(weight, (0, 1), (-1, -2))
    kind = (nb.ConvTranspose1D, nb.ConvTranspose2D)[rank - 1]
    layer = kind(filters, plain(weight.shape[:rank]), use_bias=has_bias, output_padding=plain(extra), groups=groups, **options)
    r.add(layer, weight=weight, **arrays)


def pool(r: Reader, node: Node) -> None:
    sizes = r.channels(node, (1, 2))
    rank = len(sizes)
    kernel, stride = numbers(node, "kernel_shape", rank), numbers(node, "strides", rank, 1)
    if set(numbers(node, "dilations", rank, 1)) != {1} or node.int("storage_order", 0):
        raise OnnxError("pooling with dilation or storage_order, which nbnet does not have")
    options = {"padding": padding(node, sizes, kernel, stride, [1] * rank), "ceil_mode": bool(node.int("ceil_mode", 0))}
    if node.op == "AveragePool":
        options["count_include_pad"] = bool(node.int("count_include_pad", 0))
        kinds: Any = (nb.AvgPool1D, nb.AvgPool2D)
    else:
        kinds = (nb.MaxPool1D, nb.MaxPool2D)
    r.add(kinds[rank - 1](plain(kernel), None if kernel == stride else plain(stride), **options))


def global_pool(mean: bool) -> Rule:
    def rule(r: Reader, node: Node) -> None:
        pool_all(r, node, mean, True)

    return rule


def pool_all(r: Reader, node: Node, mean: bool, keep: bool) -> None:
    """The mean or the maximum over all axes but the channels'."""
    sizes = r.channels(node, (1, 2))
    channels = r.at.shape[0]
    kinds = (nb.GlobalAvgPool1D, nb.GlobalAvgPool2D) if mean else (nb.GlobalMaxPool1D, nb.GlobalMaxPool2D)
    r.add(kinds[len(sizes) - 1](keepdims=keep))
    shape = (channels, *[1] * len(sizes)) if keep else (channels,)
    r.at = r.at._replace(shape=shape, moved=shape if keep else ())


def on_images(r: Reader, node: Node, make: Callable[[Pairs], Layer | None], found: Pairs) -> None:
    """Add a layer of images, also to a sequence, which is then an image of height 1."""
    layer = make([(0, 0)] * (2 - len(found)) + found)
    if layer is None:
        return
    _check_width(r, r.at.shape[1:])
    if len(found) == 2:
        r.add(layer)
        return
    channels, length = r.at.shape
    r.steps.append(_built(r, nb.Reshape((1, length, channels)), (length, channels)))
    r.steps.append(_built(r, layer, (1, length, channels)))
    length = layer.output_shape[1]
    r.steps.append(_built(r, nb.Reshape((length, channels)), (1, length, channels)))
    r.at = r.at._replace(shape=(channels, length), moved=(channels, length))


def _check_width(r: Reader, sizes: Sequence[int]) -> None:
    if max(sizes) > WIDEST:
        raise OnnxError(f"an image of {max(sizes):,} pixels along one side, expected at most {WIDEST:,}")
    r.constants.spend(8 * sum(sizes))  # tables, built twice


def _built(r: Reader, layer: Layer, shape: tuple[int, ...]) -> Layer:
    layer.build(shape, backend=r.backend)
    return layer


def pad(r: Reader, node: Node) -> None:
    rank = len(r.at.shape) + 1
    values, given = r.ints(node, 1, "pads"), r.ints(node, 3, "axes")
    axes = list(range(rank)) if given is None else [axis % rank for axis in given]
    if values is None or len(values) != 2 * len(axes) or not all(abs(n) < LONGEST for n in values):
        raise OnnxError(f"pads are {values}, expected two whole numbers for each axis, below {LONGEST}")
    value = r.constant(node, 2)
    number = node.float("value", 0.0) if value is None else float(value.reshape(-1)[0]) if value.size else 0.0
    mode = {"constant": "zeros", "reflect": "reflect", "edge": "edge"}.get(node.text("mode", "constant"))
    if mode is None or (mode == "zeros" and number):
        raise OnnxError(f"mode {node.text('mode', 'constant')!r} with the number {number:g}, expected zeros, reflect or edge")
    sides = dict(zip(axes, pairs(values)))
    if any(any(sides.get(axis, ())) for axis in (0, 1)):
        raise OnnxError("it pads the batch or the channels, expected images")
    if not any(map(any, sides.values())):
        return
    r.channels(node, (1, 2))
    found = [sides.get(axis, (0, 0)) for axis in range(2, rank)]
    more = [(max(0, before), max(0, after)) for before, after in found]
    less = [(max(0, -before), max(0, -after)) for before, after in found]
    on_images(r, node, lambda each: nb.Crop2D(tuple(each)) if any(map(any, each)) else None, less)
    on_images(r, node, lambda each: nb.Pad2D(tuple(each), mode) if any(map(any, each)) else None, more)


def crop(r: Reader, node: Node) -> None:
    rank = len(r.at.shape) + 1
    kept = slices(node, rank, *[r.constant(node, i) for i in range(1, 5)])
    sizes = r.channels(node, (1, 2))
    found = [(0, 0)] * len(sizes)
    for axis, piece in kept.items():
        size = (0, *r.at.shape)[axis]
        if axis == 0:
            raise OnnxError("it cuts the batch, expected images")
        start, stop, step = piece.indices(size)
        if (start, stop, step) == (0, size, 1):
            continue
        if step != 1 or axis == 1:
            raise OnnxError("it takes some channels, or every other pixel: nbnet has a cut of the outermost pixels")
        found[axis - 2] = (start, size - stop)
    on_images(r, node, lambda each: nb.Crop2D(tuple(each)) if any(map(any, each)) else None, found)


def resize(r: Reader, node: Node) -> None:
    """Enlarging by whole factors, by repeated pixels or linearly."""
    sizes = r.channels(node, (2,))
    shape = (1, *r.at.shape)
    place = 1 if node.op == "Upsample" or len(node.inputs) < 3 else 2
    wanted, scales = r.ints(node, 3, ""), r.constant(node, place)
    axes = [axis % 4 for axis in node.ints("axes", [0, 1, 2, 3])]
    factors = dict.fromkeys(range(4), 1.0)
    if wanted:
        factors |= {axis: n / shape[axis] for axis, n in zip(axes, wanted) if axis > 0}
    elif scales is not None and scales.size:
        factors |= dict(zip(axes, map(float, r.weight(node, place, (None,)))))
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if wanted and policy != "stretch":
        choose = {"not_larger": min, "not_smaller": max}.get(policy)
        if choose is None:
            raise OnnxError(f"keep_aspect_ratio_policy is {policy!r}, expected stretch, not_larger or not_smaller")
        factors |= dict.fromkeys(axes, choose(factors[axis] for axis in axes))
    mode = node.text("mode", "nearest")
    transform = "asymmetric" if node.op == "Upsample" or r.opset < 11 else node.text("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if node.op == "Upsample" or r.opset < 11 else node.text("nearest_mode", "round_prefer_floor")
    whole = [round(factors[axis]) for axis in (2, 3)]
    is_whole = all(1 <= n < LONGEST and abs(factors[axis] - n) < 1e-6 for axis, n in zip((2, 3), whole))
    centred = transform.endswith("half_pixel") and rounding.startswith("round")
    repeats = mode == "nearest" and ((transform, rounding) == ("asymmetric", "floor") or centred)
    half_pixel = ("half_pixel",) if min(map(operator.mul, sizes, whole)) < 2 else ("half_pixel", "pytorch_half_pixel")
    linear = mode == "linear" and transform in half_pixel
    if factors[0] != 1 or factors[1] != 1 or not is_whole or not (repeats or linear) or node.int("antialias", 0):
        named = f"mode {mode!r}, {transform!r}, by {factors[2]:g} and {factors[3]:g}"
        raise OnnxError(f"{named}: nbnet has 'nearest' and half-pixel 'linear', by whole factors")
    if whole != [1, 1]:
        _check_width(r, [n * f for n, f in zip(sizes, whole)])
        r.add(nb.UpSample2D(plain(whole), "nearest" if repeats else "bilinear"))


def resampled(r: Reader, first: Node, second: Node) -> bool:
    """Read products with matrices along both axes as what nb.onnx.export writes as such; whether they are one."""
    if first.inputs[0] not in first.data or second.inputs[0] in second.data or len(r.at.shape) != 3:
        return False
    columns, rows = r.weight(first, 1, (None, None)).T, r.weight(second, 0, (None, None))
    sizes, out = r.at.shape[1:], (len(rows), len(columns))
    if (rows.shape[1], columns.shape[1]) != sizes:
        return False
    makers: list[tuple[Callable[..., Any], Any]] = [(bins, lambda: nb.AdaptiveAvgPool2D(plain(out)))]
    if not out[0] % sizes[0] and not out[1] % sizes[1]:
        factors = out[0] // sizes[0], out[1] // sizes[1]
        makers.append((lambda size, n: upsampled(size, n // size, "bilinear"), lambda: nb.UpSample2D(plain(factors), "bilinear")))
    for taps, make in makers:
        wanted = [taps(size, n).matrix().astype(np.float32) for size, n in zip(sizes, out)]
        if all(np.array_equal(a, b) for a, b in zip(wanted, (rows, columns))):
            r.last()
            r.add(make())
            return True
    return False


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": global_pool(True),
    "GlobalMaxPool": global_pool(False),
    "Pad": pad,
    "Slice": crop,
    "Resize": resize,
    "Upsample": resize,
}
