"""Samples of PyTorch's OpInfo on nbnet, with the gradients of all their float tensors."""

import functools
import inspect
import warnings

import numpy as np
import torch
from tolerances import assert_close

from conform import calls, taps
from conform.calls import NotExpressible

partial = functools.partial


def cases(expanded):
    from torch.testing._internal.common_methods_invocations import op_db

    torch.manual_seed(0)
    for info in op_db:
        name = info.formatted_name if info.name == "nn.functional.pad" else info.name
        adapter = OPERATORS.get(info.name)
        for dtype in (torch.float32, torch.float64) if adapter else ():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                samples = list(info.sample_inputs("cpu", dtype))
            for i, sample in enumerate(samples):
                call = partial(compare, adapter, info.op, sample.input, sample.args, sample.kwargs)
                yield name, f"{info.variant_test_name} {dtype} {i}", call


def compare(adapter, op, first, args, kwargs, parameters=None):
    """Compare the result of nbnet with that of PyTorch in float64, and the gradients for a random cotangent.

    parameters: {name: tensor in float64} that `op` uses and the gradients name, beside those among the arguments.
    """
    y, backward = adapter(plain(first), *map(plain, args), **{name: plain(each) for name, each in kwargs.items()})
    bound = inspect.signature(adapter).bind(first, *args, **kwargs).arguments
    constants = [id(value) for name, value in bound.items() if name.startswith("running_")]

    def wide(value):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.detach().to(torch.float64, copy=True).requires_grad_(id(value) not in constants)

    leaves = {id(value): wide(value) for value in (first, *args, *kwargs.values())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = op(leaves[id(first)], *(leaves[id(each)] for each in args), **{name: leaves[id(each)] for name, each in kwargs.items()})
    if not isinstance(wanted, torch.Tensor):
        raise NotExpressible("several results")
    result, eps = wanted.detach().numpy(), np.finfo(y.dtype).eps
    assert y.shape == result.shape, f"y has shape {y.shape}, wanted {result.shape}"
    inexact = np.abs(y - result) <= 2 * eps * np.abs(plain(first)).max(initial=0)  # the tails of PyTorch's GELU in float64
    assert_close(y, np.where(inexact, y, result), "golden", y.dtype, "y: ")
    tensors = {name: leaves.get(id(value)) for name, value in bound.items()} | (parameters or {})
    tensors = {name: each for name, each in tensors.items() if isinstance(each, torch.Tensor) and each.requires_grad}
    if backward is None or not wanted.requires_grad:
        return
    dy = np.random.Generator(np.random.Philox(1)).standard_normal(y.shape).astype(y.dtype)
    gradients, rounding = backward(dy), 8 * eps * np.abs(dy).max(initial=0)
    theirs = torch.autograd.grad(wanted, list(tensors.values()), torch.from_numpy(dy.astype(np.float64)), allow_unused=True)
    for (name, tensor), gradient in zip(tensors.items(), theirs, strict=True):
        ours = gradients.get(name)
        if gradient is None or ours is None:
            continue
        ours, gradient = np.asarray(ours).reshape(tensor.shape), gradient.numpy()
        gradient = np.where(np.abs(ours - gradient) <= rounding, ours, gradient)
        assert_close(ours, gradient, "golden", y.dtype, f"gradient of {name}: ")


def plain(value):
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def _activation(name):
    def call(data, inplace=False):
        y, backward = calls.activation(name, data)
        inexact = name == "hardsigmoid" and data.dtype == np.float64  # PyTorch's gradient, which has 1/6 in float32
        return y, None if inexact else backward

    return call


def _leaky_relu(data, negative_slope=0.01, inplace=False):
    return calls.activation("leaky_relu", data, slope=negative_slope)


def _alpha(name):
    def call(data, alpha=1.0, inplace=False):
        return calls.activation(name, data, alpha=alpha)

    return call


def _gelu(data, approximate="none"):
    return calls.activation("gelu", data, approximate=approximate)


def _softplus(data, beta=1.0, threshold=20.0):
    return calls.activation("softplus", data, beta=beta, threshold=threshold)


def _hardtanh(data, min_val=-1.0, max_val=1.0, inplace=False):
    return calls.activation("hardtanh", data, low=min_val, high=max_val)


def _of_rows(name):
    def call(data, dim=-1, dtype=None, _stacklevel=3):
        if dtype is not None:
            raise NotExpressible("a dtype for the result")
        return calls.of_rows(name, data, dim)

    return call


def _instance_norm(data, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    if not use_input_stats:
        return calls.batch_norm(data, running_mean, running_var, weight, bias, eps=eps)
    return calls.group_norm(data, data.shape[1], weight, bias, eps)


def _pad(data, pad, mode="constant", value=None):
    pairs = {data.ndim - 1 - i: (pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)}
    modes = {"constant": "zeros", "replicate": "edge", "circular": "wrap"}
    return calls.pad(data, pairs, modes.get(mode, mode), value)


def _interpolate(data, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None, antialias=False):
    dims = data.ndim - 2
    sizes = [size] * dims if isinstance(size, int) else size
    factors = [scale_factor] * dims if isinstance(scale_factor, (int, float)) else scale_factor
    if mode == "area":
        sizes = sizes or [int(n * f) for n, f in zip(data.shape[2:], factors)]
        return calls.adaptive_avg_pool(dims, data, tuple(sizes))
    tables = {}
    for axis in range(dims):
        n = data.shape[2 + axis]
        out = sizes[axis] if sizes else int(n * factors[axis])
        scale = out / n if sizes or recompute_scale_factor or align_corners else float(factors[axis])
        options = {"transform": "align_corners" if align_corners else "half_pixel", "antialias": antialias, "exclude_outside": antialias}
        if mode == "nearest":
            options |= {"transform": "asymmetric", "rounding": "floor"}
        kind = "nearest" if mode.startswith("nearest") else "cubic" if mode == "bicubic" else "linear"
        options |= {"a": -0.5 if antialias else -0.75}
        tables[2 + axis] = taps.resized(n, out, scale, kind, **{"rounding": "round_prefer_ceil"} | options)
    return calls.along_axes(data, tables)


def _upsample(mode, align_corners):
    def call(data, size=None, scale_factor=None):
        return _interpolate(data, size, scale_factor, mode, align_corners)

    return call


def _cross_entropy(data, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    return calls.cross_entropy(data, target, weight, ignore_index, reduction, label_smoothing)


def _dropout(data, p=0.5, training=True, inplace=False):
    return calls.dropout(data, p, training)


def _add(data, other, alpha=1):
    if alpha != 1 or not isinstance(other, np.ndarray):
        raise NotExpressible("Add takes arrays, without a factor")
    return calls.joined("Add", data, other)


def _mul(data, other):
    if not isinstance(other, np.ndarray):
        raise NotExpressible("Multiply takes arrays")
    return calls.joined("Multiply", data, other)


PADS = {"Reflection": "reflect", "Replication": "replicate", "Zero": "constant", "Circular": "circular", "Constant": "constant"}
PLAIN = ("relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid", "logsigmoid", "softsign")
OPERATORS = {
    **{f"nn.functional.{name}": _activation(name) for name in PLAIN},
    **{name: _activation(name) for name in ("sigmoid", "tanh")},
    **{f"nn.functional.{name}": _alpha(name) for name in ("elu", "celu")},
    "nn.functional.leaky_relu": _leaky_relu,
    "nn.functional.gelu": _gelu,
    "nn.functional.softplus": _softplus,
    "nn.functional.hardtanh": _hardtanh,
    "nn.functional.prelu": calls.prelu,
    "softmax": _of_rows("softmax"),
    "log_softmax": _of_rows("log_softmax"),
    **{f"nn.functional.conv{d}d": partial(calls.conv, d) for d in (1, 2, 3)},
    **{f"nn.functional.conv_transpose{d}d": partial(calls.conv_transpose, d) for d in (1, 2, 3)},
    **{f"nn.functional.max_pool{d}d": partial(calls.max_pool, d) for d in (1, 2, 3)},
    **{f"nn.functional.avg_pool{d}d": partial(calls.avg_pool, d) for d in (1, 2, 3)},
    **{f"nn.functional.adaptive_avg_pool{d}d": partial(calls.adaptive_avg_pool, d) for d in (1, 2, 3)},
    "nn.functional.linear": calls.linear,
    "nn.functional.group_norm": calls.group_norm,
    "nn.functional.instance_norm": _instance_norm,
    "nn.functional.layer_norm": calls.layer_norm,
    "nn.functional.rms_norm": calls.rms_norm,
    "nn.functional.batch_norm": calls.batch_norm,
    "nn.functional.pad": _pad,
    "nn.functional.interpolate": _interpolate,
    "nn.functional.upsample_bilinear": _upsample("bilinear", True),
    "nn.functional.upsample_nearest": _upsample("nearest", None),
    "nn.functional.cross_entropy": _cross_entropy,
    "nn.functional.mse_loss": calls.mse_loss,
    "nn.functional.l1_loss": calls.l1_loss,
    "nn.functional.huber_loss": calls.huber_loss,
    "nn.functional.binary_cross_entropy": partial(calls.binary_cross_entropy, from_logits=False),
    "nn.functional.binary_cross_entropy_with_logits": calls.binary_cross_entropy,
    "nn.functional.dropout": _dropout,
    "add": _add,
    "mul": _mul,
}
