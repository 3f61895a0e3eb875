"""The node tests of the package onnx, run through nbnet."""

import functools
import re
import warnings

import numpy as np

from conform import calls, taps
from conform.calls import NotExpressible

# Dtypes that nbnet does not compute in, and one of its two that holds all their numbers: the translation casts to it.
WIDER = {"float16": "float32", "bfloat16": "float32", **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16", "uint32"), "float64")}
WIDER["uint64"] = "float64"  # the cases hold small numbers
HALF = {"float16": 1e-3, "bfloat16": 8e-3}  # relative roundings of the expected numbers


def cases(expanded):
    """Operator, name and call of each case; `expanded` tells whether the same cases as functions of simpler operators are among them."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = {case.name: case for case in load_model_tests(kind="node")}
    for name, case in tests.items():
        plain = tests.get(re.sub(r"_expanded(_ver\d+)?$", "", name), case) if expanded else case
        nodes = plain.model.graph.node
        if len(nodes) == 1 and f"_{nodes[0].op_type}" in globals():
            yield nodes[0].op_type, name, functools.partial(_run, case, plain)


def _run(case, plain):
    """Compare the outputs of a case.

    Raises:
        NotExpressible: nbnet has no such case. AssertionError: an output is wrong.
    """
    from onnx import helper

    (node,) = plain.model.graph.node
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    for inputs, expected in case.data_sets:
        given = iter(inputs)
        arrays = [np.asarray(next(given)) if name else None for name in node.input]
        wide = WIDER.get(arrays[0].dtype.name)
        if wide:
            arrays = [None if x is None else x.astype(wide) if x.dtype == arrays[0].dtype else x for x in arrays]
        outputs = globals()[f"_{node.op_type}"](attributes, [name for name in node.output if name], *arrays)
        for actual, wanted in zip(outputs, expected, strict=True):
            wanted = np.asarray(wanted)
            assert actual.shape == wanted.shape, f"shape {actual.shape}, wanted {wanted.shape}"
            rtol = max(case.rtol, HALF.get(wanted.dtype.name, 0))
            np.testing.assert_allclose(actual, wanted.astype(np.float64), rtol=rtol, atol=max(case.atol, 1e-6))


# ------------------------------------------------------------------------------------------------------ windows


def _windows(a, x, kernel):
    """Stride, padding and dilation of windows of this size on x."""
    dims = x.ndim - 2
    if dims > 2:
        raise NotExpressible("nbnet has images of 1 and 2 dimensions")
    stride, dilation = a.get("strides", [1] * dims), a.get("dilations", [1] * dims)
    auto = a.get("auto_pad", "NOTSET")
    if auto == "SAME_UPPER":
        return dims, stride, "same", dilation
    if auto == "SAME_LOWER":
        extra = [
            max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        return dims, stride, [(n - n // 2, n // 2) for n in extra], dilation
    pads = a.get("pads", [0] * 2 * dims)
    return dims, stride, [(pads[i], pads[i + dims]) for i in range(dims)], dilation


def _Conv(a, outputs, x, w, b=None):
    dims, stride, padding, dilation = _windows(a, x, w.shape[2:])
    return [calls.conv(dims, x, w, b, stride, padding, dilation, a.get("group", 1))[0]]


def _ConvTranspose(a, outputs, x, w, b=None):
    dims, stride, padding, dilation = _windows({**a, "auto_pad": "NOTSET"}, x, w.shape[2:])
    kernel, extra = w.shape[2:], list(a.get("output_padding", [0] * dims))
    auto, wanted = a.get("auto_pad", "NOTSET"), a.get("output_shape")
    if auto.startswith("SAME") and wanted is None:
        wanted = [n * s for n, s in zip(x.shape[2:], stride)]
    if wanted is not None:
        total = [s * (n - 1) + e + (k - 1) * d + 1 - o for n, s, e, k, d, o in zip(x.shape[2:], stride, extra, kernel, dilation, wanted)]
        extra = [e + max(0, -t) for e, t in zip(extra, total)]
        total = [max(0, t) for t in total]
        padding = [(t - t // 2, t // 2) if auto != "SAME_UPPER" else (t // 2, t - t // 2) for t in total]
    return [calls.conv_transpose(dims, x, w, b, stride, padding, extra, a.get("group", 1), dilation)[0]]


def _MaxPool(a, outputs, x):
    dims, stride, padding, dilation = _windows(a, x, a["kernel_shape"])
    return [calls.max_pool(dims, x, a["kernel_shape"], stride, padding, dilation, bool(a.get("ceil_mode", 0)), len(outputs) > 1)[0]]


def _AveragePool(a, outputs, x):
    dims, stride, padding, dilation = _windows(a, x, a["kernel_shape"])
    if set(dilation) != {1}:
        raise NotExpressible("dilated pooling is left out on purpose")
    options = {"ceil_mode": bool(a.get("ceil_mode", 0)), "count_include_pad": bool(a.get("count_include_pad", 0))}
    return [calls.avg_pool(dims, x, a["kernel_shape"], stride, padding, **options)[0]]


def _GlobalAveragePool(a, outputs, x):
    return [calls.avg_pool(x.ndim - 2, x, x.shape[2:])[0]]


def _GlobalMaxPool(a, outputs, x):
    return [calls.max_pool(x.ndim - 2, x, x.shape[2:])[0]]


def _without(reason):
    def refuse(a, outputs, *inputs):
        raise NotExpressible(reason)

    return refuse


_LpPool = _without("nbnet has no pooling by other norms")
_LRN = _without("nbnet has no local response normalisation")
_NegativeLogLikelihoodLoss = _without("nbnet's cross entropy takes logits, not log-probabilities")
_ThresholdedRelu = _without("nbnet has no ReLU with a threshold")


# -------------------------------------------------------------------------------------------------------- norms


def _BatchNormalization(a, outputs, x, gamma, beta, mean, var):
    eps, decay = a.get("epsilon", 1e-5), a.get("momentum", 0.9)
    if not a.get("training_mode", 0):
        return [calls.batch_norm(x, mean, var, gamma, beta, eps=eps)[0]]
    layer = calls.nb.BatchNorm(decay=decay, eps=eps, unbiased=False)
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    layer.build(rows.shape[1:], backend=calls.BACKEND, dtype=x.dtype)
    for array, values in ((layer.params["gamma"].value, gamma), (layer.params["beta"].value, beta)):
        array[:] = values
    layer.buffers["moving_mean"][:], layer.buffers["moving_var"][:] = mean, var
    y, _ = layer.forward(rows, train=True)
    return [np.moveaxis(y, -1, 1), layer.buffers["moving_mean"], layer.buffers["moving_var"]][: len(outputs)]


def _GroupNormalization(a, outputs, x, gamma, beta):
    return [calls.group_norm(x, a["num_groups"], gamma, beta, a.get("epsilon", 1e-5))[0]]


def _InstanceNormalization(a, outputs, x, gamma, beta):
    return [calls.group_norm(x, x.shape[1], gamma, beta, a.get("epsilon", 1e-5))[0]]


def _LayerNormalization(a, outputs, x, gamma, beta=None):
    axis = a.get("axis", -1) % x.ndim
    shape, beta = x.shape[axis:], beta if beta is None else np.broadcast_to(beta, x.shape[axis:])
    y, _, saved = calls.layer_norm(x, shape, np.broadcast_to(gamma, shape), beta, a.get("epsilon", 1e-5), saved_too=True)
    kept = x.shape[:axis] + (1,) * len(shape)
    return [y, saved.mean.reshape(kept).astype(x.dtype), saved.inv_std.reshape(kept).astype(x.dtype)][: len(outputs)]


def _RMSNormalization(a, outputs, x, gamma):
    shape = x.shape[a.get("axis", -1) % x.ndim :]
    return [calls.rms_norm(x, shape, np.broadcast_to(gamma, shape), a.get("epsilon", 1e-5))[0]]


def _LpNormalization(a, outputs, x):
    if a.get("p", 2) != 2:
        raise NotExpressible("nbnet normalises by the root of the mean square alone")
    rows = np.moveaxis(x, a.get("axis", -1), -1)
    gamma = np.full(rows.shape[-1:], rows.shape[-1] ** -0.5, x.dtype)  # the mean of squares for their sum
    return [np.moveaxis(calls.rms_norm(np.ascontiguousarray(rows), rows.shape[-1:], gamma, 0.0)[0], -1, a.get("axis", -1))]


def _MeanVarianceNormalization(a, outputs, x):
    if sorted(a.get("axes", [0, 2, 3])) != [axis for axis in range(x.ndim) if axis != 1]:
        raise NotExpressible("statistics that are not of each channel")
    return [calls.batch_norm(x, None, None, training=True, eps=1e-18)[0]]


# -------------------------------------------------------------------------------------------------- activations


def _named(name, **defaults):
    """An activation; defaults: {attribute of ONNX: (argument of nbnet, default of ONNX)}."""

    def call(a, outputs, x):
        options = {ours: a.get(theirs, default) for theirs, (ours, default) in defaults.items()}
        return [calls.activation(name, x, **options)[0]]

    return call


_Relu, _Tanh, _Sigmoid, _Mish, _Softplus, _Softsign = map(_named, ("relu", "tanh", "sigmoid", "mish", "softplus", "softsign"))
_HardSwish = _named("hardswish")
_LeakyRelu = _named("leaky_relu", alpha=("slope", 0.01))
_Celu, _Elu = _named("celu", alpha=("alpha", 1.0)), _named("elu", alpha=("alpha", 1.0))
_Gelu = _named("gelu", approximate=("approximate", "none"))


def _fixed(name, **wanted):
    """An activation whose numbers nbnet fixes; wanted: {attribute: (the number, default of ONNX)}."""

    def call(a, outputs, x):
        for attribute, (number, default) in wanted.items():
            if abs(a.get(attribute, default) - number) > 1e-6:
                raise NotExpressible(f"{attribute}={a.get(attribute, default):g}: nbnet's {name} has {number:g}")
        return [calls.activation(name, x)[0]]

    return call


_HardSigmoid = _fixed("hardsigmoid", alpha=(1 / 6, 0.2), beta=(0.5, 0.5))
_Selu = _fixed("selu", alpha=(1.6732632423543772, 1.67326319217681884765625), gamma=(1.0507009873554805, 1.05070102214813232421875))
_Swish = _fixed("silu", alpha=(1.0, 1.0))


def _PRelu(a, outputs, x, slope):
    per_channel = slope.size == 1 or (slope.ndim in (1, x.ndim - 1) and slope.size == x.shape[1] == slope.shape[0] and x.ndim > 1)
    if slope.ndim == 1 and slope.size == x.shape[-1] and x.ndim > 1:  # broadcast along the last axis
        return [np.moveaxis(calls.prelu(np.moveaxis(x, -1, 1), slope)[0], 1, -1)]
    if not per_channel:
        raise NotExpressible("a slope for each number: PReLU has one for each channel")
    return [calls.prelu(x, slope)[0]]


def _Softmax(a, outputs, x):
    return [calls.of_rows("softmax", x, a.get("axis", -1))[0]]


def _LogSoftmax(a, outputs, x):
    return [calls.of_rows("log_softmax", x, a.get("axis", -1))[0]]


# ---------------------------------------------------------------------------------------------------- the rest


def _SoftmaxCrossEntropyLoss(a, outputs, x, labels, weights=None):
    options = {"ignore_index": a.get("ignore_index", -(1 << 40)), "reduction": a.get("reduction", "mean")}
    results = [calls.cross_entropy(x, labels, weights, **options)[0]]
    return results if len(outputs) == 1 else [*results, calls.of_rows("log_softmax", x, 1)[0]]


def _Dropout(a, outputs, x, ratio=None, training=None):
    if len(outputs) > 1:
        raise NotExpressible("Dropout returns no mask")
    ratio = a.get("ratio", 0.5) if ratio is None else float(ratio)
    return [calls.dropout(x, ratio, bool(training))[0]]


def _Pad(a, outputs, x, pads, value=None, axes=None):
    axes = range(x.ndim) if axes is None else axes.tolist()
    count = len(pads) // 2
    pairs = {axis % x.ndim: (int(pads[i]), int(pads[i + count])) for i, axis in enumerate(axes)}
    mode = a.get("mode", "constant")
    return [calls.pad(x, pairs, "zeros" if mode == "constant" else mode, None if value is None else float(value))[0]]


def _Resize(a, outputs, x, roi=None, scales=None, sizes=None):
    axes = [axis % x.ndim for axis in a.get("axes", range(x.ndim))]
    lengths = [x.shape[axis] for axis in axes]
    if sizes is not None and sizes.size:
        scales, sizes = np.array(sizes) / lengths, sizes.tolist()
        policy = a.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scales = np.full(len(axes), scales.min() if policy == "not_larger" else scales.max())
            sizes = [int(np.floor(scale * n + 0.5)) for scale, n in zip(scales, lengths)]
    else:
        scales = scales.astype(np.float64)
        sizes = [int(np.floor(scale * n)) for scale, n in zip(scales, lengths)]
    transform = a.get("coordinate_transformation_mode", "half_pixel")
    crops = transform == "tf_crop_and_resize"
    if crops and a.get("extrapolation_value", 0.0) != 0:
        raise NotExpressible("a number other than 0 outside the image")
    options = {
        "rounding": a.get("nearest_mode", "round_prefer_floor"),
        "a": a.get("cubic_coeff_a", -0.75),
        "exclude_outside": bool(a.get("exclude_outside", 0)),
        "antialias": bool(a.get("antialias", 0)),
        "zero_outside": crops,
    }
    tables = {}
    for i, (axis, n, out, scale) in enumerate(zip(axes, lengths, sizes, scales)):
        ends = (float(roi[i]), float(roi[i + len(axes)])) if crops else None
        if out != n or scale != 1 or (crops and ends != (0, 1)):
            tables[axis] = taps.resized(n, out, float(scale), a.get("mode", "nearest"), transform, roi=ends, **options)
    return [calls.along_axes(x, tables)[0]]


def _Upsample(a, outputs, x, scales):
    return _Resize({**a, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, outputs, x, None, scales)


def _Concat(a, outputs, *inputs):
    return [np.moveaxis(calls.joined("Concat", *(np.moveaxis(x, a["axis"], -1) for x in inputs))[0], -1, a["axis"])]


def _Add(a, outputs, *inputs):
    return [calls.joined("Add", *inputs)[0]]


def _Mul(a, outputs, *inputs):
    return [calls.joined("Multiply", *inputs)[0]]
