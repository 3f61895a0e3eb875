"""The table of rules: how each layer is written as nodes."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from nbnet import layers as nb
from nbnet.functional.conv2d import out_size
from nbnet.functional.conv_transpose import transposed_size
from nbnet.functional.groupnorm import last_axes
from nbnet.layers.activations import Elementwise
from nbnet.layers.containers import Container
from nbnet.onnx.out_activations import activated, elementwise, prelu
from nbnet.onnx.out_windows import adaptive_pool, beyond, crop, global_pool, in_order, pad, padded, pool, upsample
from nbnet.onnx.writer import Rule, Value, Writer, channel_wise


def _numbers(layer: Any, name: str) -> np.ndarray:
    return np.asarray(layer.params[name].value)


# ---------------------------------------------------------------------------------------------------- products


def _dense(w: Writer, layer: nb.Dense, x: Value) -> Value:
    """Where the features are a flattened image with the channels first, the rows of the weight are in that order."""
    weight = _numbers(layer, "weight")
    if x.moved:
        weight = np.moveaxis(weight.reshape(*x.moved, -1), -2, 0).reshape(weight.shape)
    name = w.node("Gemm", x.name, w.param(layer, "weight", weight), *_bias(w, layer))
    return activated(w, layer, Value(name, layer.output_shape))


def _bias(w: Writer, layer: Any) -> list[str]:
    return [w.param(layer, "bias", _numbers(layer, "bias"))] if layer.use_bias else []


def _convolution(w: Writer, layer: Any, x: Value) -> Value:
    """(kh, kw, in, out) becomes (out, in, kh, kw), the padding numbers; padding that is not zeros is a node of its own."""
    x = w.first(x)
    rank, window = len(x.shape) - 1, layer.window
    weight = layer.in_form(_numbers(layer, "weight")).transpose(3, 2, 0, 1)
    (kernel_h, kernel_w), (height, width) = weight.shape[2:], (1, *x.shape[:-1])[-2:]
    kernel, image = (kernel_h, kernel_w), (height, width)
    out, before = out_size(height, width, kernel, window)
    pads = [
        (begin, beyond(length, outputs, (size - 1) * dilation + 1, stride, begin))
        for length, outputs, size, dilation, stride, begin in zip(image, out, kernel, window.dilation, window.stride, before)
    ][-rank:]
    name = x.name
    if window.padding_mode != "zeros":
        name, pads = padded(w, name, pads, window.padding_mode), [(0, 0)] * rank
    options = {"strides": window.stride[-rank:], "dilations": window.dilation[-rank:], "pads": in_order(pads), "group": window.groups}
    weight = weight.reshape(*weight.shape[:2], *kernel[-rank:])
    name = w.node("Conv", name, w.param(layer, "weight", weight), *_bias(w, layer), **options)
    return activated(w, layer, Value(name, layer.output_shape, layer.output_shape))


def _transposed(w: Writer, layer: nb.ConvTranspose2D, x: Value) -> Value:
    """(kh, kw, out, in) becomes (in, out, kh, kw). Rows that no input reaches are output padding."""
    x = w.first(x)
    rank, window = len(x.shape) - 1, layer.window
    weight = _numbers(layer, "weight").reshape(*layer.kernel_size, -1, x.shape[-1]).transpose(3, 2, 0, 1)
    (kernel_h, kernel_w), (height, width) = weight.shape[2:], (1, *x.shape[:-1])[-2:]
    kernel, image = (kernel_h, kernel_w), (height, width)
    out, geometry = transposed_size(height, width, kernel, window, layer.output_padding)
    pads, extra = [], []
    for length, outputs, size, dilation, stride, begin in zip(
        image, out, kernel, window.dilation, window.stride, (geometry.pad_top, geometry.pad_left)
    ):
        surplus = (length - 1) * stride + (size - 1) * dilation + 1 - begin - outputs
        pads.append((begin, max(0, surplus)))
        extra.append(max(0, -surplus))
    options = {"strides": window.stride[-rank:], "dilations": window.dilation[-rank:], "group": window.groups}
    options |= {"pads": in_order(pads[-rank:]), "output_padding": extra[-rank:]}
    weight = weight.reshape(*weight.shape[:2], *kernel[-rank:])
    name = w.node("ConvTranspose", x.name, w.param(layer, "weight", weight), *_bias(w, layer), **options)
    return Value(name, layer.output_shape, layer.output_shape)


# ------------------------------------------------------------------------------------------------------- norms


def _batch_norm(w: Writer, layer: nb.BatchNorm, x: Value) -> Value:
    mean, var, eps = layer.moving.read(layer.buffers)
    mean, var = np.asarray(mean), np.asarray(var)
    gamma = _numbers(layer, "gamma") if layer.scale else np.ones(mean.shape)
    beta = _numbers(layer, "beta") if layer.center else np.zeros(mean.shape)
    if layer.normalizes_last_axis:
        x = w.first(x)
        arrays = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_var": var}
        names = [w.param(layer, name, array) for name, array in arrays.items()]
        training = {} if layer.decay is None else {"momentum": float(layer.decay)}  # the weight of the old value there too
        x = x._replace(name=w.node("BatchNormalization", x.name, *names, epsilon=eps, **training))
    else:
        x = w.last(x)
        factor = gamma / np.sqrt(var.astype(np.float64) + eps)
        form = [1] * len(x.shape)
        form[layer.axis % (len(form) + 1) - 1] = -1
        factor, offset = factor.reshape(form), (beta - mean * factor).reshape(form)
        x = x._replace(name=_affine(w, layer, x.name, factor, offset))
    return activated(w, layer, x)


def _affine(w: Writer, layer: Any, name: str, gamma: Any, beta: Any) -> str:
    """name * gamma + beta, where there are such."""
    name = name if gamma is None else w.node("Mul", name, w.param(layer, "gamma", gamma))
    return name if beta is None else w.node("Add", name, w.param(layer, "beta", beta))


def _gamma_and_beta(layer: Any) -> tuple[Any, Any]:
    return _numbers(layer, "gamma") if layer.scale else None, _numbers(layer, "beta") if layer.center else None


def _group_norm(w: Writer, layer: Any, x: Value) -> Value:
    """Groups are the channels of an instance norm."""
    x = w.first(x)
    sizes, channels = x.shape[:-1], x.shape[-1]
    groups = getattr(layer, "groups", channels)
    gamma, beta = _gamma_and_beta(layer)
    if groups == channels and sizes:
        ones = np.ones(channels) if gamma is None else gamma
        zeros = np.zeros(channels) if beta is None else beta
        names = w.param(layer, "gamma", ones), w.param(layer, "beta", zeros)
        return x._replace(name=w.node("InstanceNormalization", x.name, *names, epsilon=layer.eps))
    ones, zeros = w.own("ones", np.ones(groups)), w.own("zeros", np.zeros(groups))
    name = w.node("InstanceNormalization", w.reshaped(x.name, (groups, -1)), ones, zeros, epsilon=layer.eps)
    name = w.reshaped(name, (channels, *sizes))
    gamma, beta = (None if array is None else channel_wise(array, x.shape) for array in (gamma, beta))
    return x._replace(name=_affine(w, layer, name, gamma, beta))


def _layer_norm(w: Writer, layer: nb.LayerNorm, x: Value) -> Value:
    x = w.last(x)
    shape = last_axes(layer.axes, (0, *x.shape))
    gamma, beta = _gamma_and_beta(layer)
    names = [w.own("ones", np.ones(shape)) if gamma is None else w.param(layer, "gamma", gamma)]
    names += [] if beta is None else [w.param(layer, "beta", beta)]
    return x._replace(name=w.node("LayerNormalization", x.name, *names, axis=-len(shape), epsilon=layer.eps))


def _rms_norm(w: Writer, layer: nb.RMSNorm, x: Value) -> Value:
    x = w.last(x)
    axes = w.own("axes", [-1 - i for i in reversed(range(len(last_axes(layer.axes, (0, *x.shape)))))], np.int64)
    mean = w.node("ReduceMean", w.node("Mul", x.name, x.name), axes, keepdims=1)
    name = w.node("Div", x.name, w.node("Sqrt", w.node("Add", mean, w.own("eps", layer.eps))))
    return x._replace(name=_affine(w, layer, name, _gamma_and_beta(layer)[0], None))


# ------------------------------------------------------------------------------------------- shapes, and the rest


def _same(w: Writer, layer: Any, x: Any) -> Any:
    return x


def _dropout(w: Writer, layer: nb.Dropout, x: Value) -> Value:
    if layer.variant != "vanilla":
        return x
    return x._replace(name=w.node("Mul", x.name, w.own("kept", 1 - layer.rate)))


def _flatten(w: Writer, layer: nb.Flatten, x: Value) -> Value:
    return x if len(x.shape) == 1 else w.flat(x)


def _reshape(w: Writer, layer: nb.Reshape, x: Value) -> Value:
    return Value(w.node("Reshape", w.last(x).name, w.shape(layer.output_shape)), layer.output_shape)


def _permute(w: Writer, layer: nb.Permute, x: Value) -> Value:
    w.permuted = True
    return Value(w.node("Transpose", w.last(x).name, perm=[0, *layer.order]), layer.output_shape)


def _of_rows(op: str) -> Rule:
    return lambda w, layer, x: Value(w.node(op, w.last(x).name, axis=-1), x.shape)


# -------------------------------------------------------------------------------------------------- containers


def _child(w: Writer, name: str) -> str:
    return f"{w.path}.{name}" if w.path else name


def _sequential(w: Writer, layer: nb.Sequential, x: Any) -> Any:
    for name, child in layer._children():
        x = w.layer(child, x, _child(w, name))
    return x


def _branches(w: Writer, layer: Container, x: Any) -> tuple[Value, ...]:
    """What each branch gives, with the channels first."""
    children = layer._children()
    if type(x) is not tuple:
        x = (w.first(x),) * len(children)
    return tuple([w.layer(child, one, _child(w, name)) for (name, child), one in zip(children, x)]) if children else x


def _concat(w: Writer, layer: nb.Concat, x: Any) -> Value:
    values = [w.first(value) for value in _branches(w, layer, x)]
    name = w.node("Concat", *[value.name for value in values], axis=1)
    return Value(name, layer.output_shape, layer.output_shape if len(layer.output_shape) > 1 else ())


def _add(w: Writer, layer: nb.Add, x: Any) -> Value:
    return reduce(lambda a, b: a._replace(name=w.node("Add", a.name, b.name)), map(w.first, _branches(w, layer, x)))


def _multiply(w: Writer, layer: nb.Multiply, x: Any) -> Value:
    values, rank = [w.first(value) for value in _branches(w, layer, x)], len(layer.output_shape)
    names = [
        w.reshaped(value.name, (value.shape[0], *[1] * (rank - 1))) if len(value.shape) == 1 < rank else value.name for value in values
    ]
    name = reduce(lambda a, b: w.node("Mul", a, b), names)
    return Value(name, layer.output_shape, layer.output_shape if rank > 1 else ())


RULES: dict[type, Rule] = {
    nb.Sequential: _sequential,
    nb.Parallel: _branches,
    nb.Concat: _concat,
    nb.Add: _add,
    nb.Multiply: _multiply,
    nb.Dense: _dense,
    nb.Conv1D: _convolution,
    nb.Conv2D: _convolution,
    nb.DepthwiseConv2D: _convolution,
    nb.ConvTranspose2D: _transposed,
    nb.ConvTranspose1D: _transposed,
    nb.BatchNorm: _batch_norm,
    nb.GroupNorm: _group_norm,
    nb.InstanceNorm: _group_norm,
    nb.LayerNorm: _layer_norm,
    nb.RMSNorm: _rms_norm,
    Elementwise: elementwise,
    nb.PReLU: prelu,
    nb.Softmax: _of_rows("Softmax"),
    nb.LogSoftmax: _of_rows("LogSoftmax"),
    nb.MaxPool2D: pool,
    nb.AvgPool2D: pool,
    nb.MaxPool1D: pool,
    nb.AvgPool1D: pool,
    nb.GlobalAvgPool2D: global_pool("GlobalAveragePool"),
    nb.GlobalMaxPool2D: global_pool("GlobalMaxPool"),
    nb.GlobalAvgPool1D: global_pool("GlobalAveragePool"),
    nb.GlobalMaxPool1D: global_pool("GlobalMaxPool"),
    nb.AdaptiveAvgPool2D: adaptive_pool,
    nb.Pad2D: pad,
    nb.Crop2D: crop,
    nb.UpSample2D: upsample,
    nb.Dropout: _dropout,
    nb.Flatten: _flatten,
    nb.Reshape: _reshape,
    nb.Permute: _permute,
    nb.Identity: _same,
}
