"""Pooling, padding, cropping and resampling as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.functional.pool import geometry
from nbnet.functional.resample import Taps, bins, upsampled
from nbnet.layers import AdaptiveAvgPool2D, AvgPool2D, Crop2D, Pad2D, UpSample2D
from nbnet.layers.base import Shape
from nbnet.onnx.writer import Value, Writer

Pairs = list[tuple[int, int]]  # of each axis: before, after
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "edge": "edge"}


def beyond(length: int, outputs: int, extent: int, stride: int, before: int) -> int:
    """How far the last window reaches beyond the end of an axis."""
    return max(0, (outputs - 1) * stride + extent - before - length)


def in_order(pads: Pairs) -> list[int]:
    """Padding as ONNX writes it: first what is before each axis."""
    return [before for before, _ in pads] + [after for _, after in pads]


def padded(w: Writer, name: str, pads: Pairs, mode: str) -> str:
    """A node that pads the axes of images or sequences with the channels first."""
    if not any(map(any, pads)):
        return name
    return w.helping("Pad", name, _pads(w, pads), mode=PAD_MODES[mode])


def _pads(w: Writer, pads: Pairs) -> str:
    return w.own("pads", in_order([(0, 0), (0, 0), *pads]), np.int64)


def pool(w: Writer, layer: Any, x: Value) -> Value:
    """MaxPool or AveragePool with all padding written out, also that of ceil_mode, in which programs differ."""
    x = w.first(x)
    height, width = (1, x.shape[0]) if len(x.shape) == 2 else x.shape[:2]
    out, (*size_and_stride, top, left), end = geometry(height, width, layer.size, layer.stride, layer.padding, layer.ceil_mode)
    sizes, strides = size_and_stride[:2], size_and_stride[2:]
    pads = [
        (before, beyond(length, outputs, size, stride, before))
        for length, outputs, size, stride, before in zip((height, width), out, sizes, strides, (top, left))
    ]
    name, rank = x.name, len(x.shape) - 1
    if isinstance(layer, AvgPool2D) and layer.count_include_pad:  # zeros that count; those beyond them do not
        zeros = [(before, min(after, stop - length)) for (before, after), stop, length in zip(pads, end, (height, width))]
        name = padded(w, name, zeros[-rank:], "zeros")
        pads = [(0, after - counted) for (_, after), (_, counted) in zip(pads, zeros)]
    op = "AveragePool" if isinstance(layer, AvgPool2D) else "MaxPool"
    options = {"kernel_shape": sizes[-rank:], "strides": strides[-rank:], "pads": in_order(pads[-rank:])}
    return _channels_first(w.node(op, name, **options), layer.output_shape)


def global_pool(op: str) -> Any:
    def rule(w: Writer, layer: Any, x: Value) -> Value:
        x = w.first(x)
        image = (*[1] * (len(x.shape) - 1), x.shape[-1])
        y = _channels_first(w.node(op, x.name), image)
        return y if layer.output_shape == image else w.flat(y)

    return rule


def pad(w: Writer, layer: Pad2D, x: Value) -> Value:
    x = w.first(x)
    return _channels_first(w.node("Pad", x.name, _pads(w, list(layer.padding)), mode=PAD_MODES[layer.mode]), layer.output_shape)


def crop(w: Writer, layer: Crop2D, x: Value) -> Value:
    x = w.first(x)
    starts = [before for before, _ in layer.cropping]
    ends = [length - after for length, (_, after) in zip(x.shape, layer.cropping)]
    numbers = [w.own(name, value, np.int64) for name, value in (("starts", starts), ("ends", ends), ("axes", (2, 3)))]
    return _channels_first(w.node("Slice", x.name, *numbers), layer.output_shape)


def upsample(w: Writer, layer: UpSample2D, x: Value) -> Value:
    if layer.mode == "bilinear" and w.permuted:
        # onnxruntime (1.32) moves the Transpose of Permute past the nodes after it, and then refuses the axes that Resize gets
        tables = [upsampled(size, factor, layer.mode) for size, factor in zip(x.shape, layer.factor)]
        return _products(w, w.first(x), layer.output_shape, *tables)
    x = w.first(x)
    scales = w.own("scales", (1, 1, *layer.factor))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    bilinear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    name = w.node("Resize", x.name, "", scales, **(nearest if layer.mode == "nearest" else bilinear))
    return _channels_first(name, layer.output_shape)


def adaptive_pool(w: Writer, layer: AdaptiveAvgPool2D, x: Value) -> Value:
    """AveragePool where all windows are equal, else products with the matrices of their means."""
    x = w.first(x)
    sizes, out = x.shape[:2], layer.output_size
    if all(size % outputs == 0 for size, outputs in zip(sizes, out)):
        steps = [size // outputs for size, outputs in zip(sizes, out)]
        return _channels_first(w.node("AveragePool", x.name, kernel_shape=steps, strides=steps), layer.output_shape)
    return _products(w, x, layer.output_shape, *[bins(size, outputs) for size, outputs in zip(sizes, out)])


def _products(w: Writer, x: Value, shape: Shape, rows: Taps, columns: Taps) -> Value:
    """Resampling as products with matrices."""
    name = w.node("MatMul", x.name, w.own("columns", columns.matrix().T))
    return _channels_first(w.node("MatMul", w.own("rows", rows.matrix()), name), shape)


def _channels_first(name: str, shape: Shape) -> Value:
    return Value(name, shape, shape)
