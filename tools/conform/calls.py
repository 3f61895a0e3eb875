"""nbnet's functional calls with the arguments and layouts of PyTorch: channels first.

Each returns y and a function of dy that gives the gradients by the names of the arguments.
"""

import numpy as np

import nbnet as nb
from conform import taps

F = nb.functional
BACKEND = "serial"
LAYERS = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "tanh": "Tanh", "sigmoid": "Sigmoid"}


class NotExpressible(Exception):
    """nbnet has no such case; the message says why."""


def floats(*arrays):
    for array in arrays:
        if array is not None and array.dtype not in (np.float32, np.float64):
            raise NotExpressible(f"dtype {array.dtype}: nbnet computes in float32 and float64")
        if array is not None and array.size == 0:
            raise NotExpressible("an array without elements")


def both(value, dims):
    """An option of `dims` axes as that of an image: the height is 1 on sequences."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    values = values * dims if len(values) == 1 else values
    return (1, *values) if dims == 1 else values


def sides(padding, dims):
    """Padding of PyTorch, the same before and behind, or already a pair for each axis."""
    if isinstance(padding, str):
        return padding
    values = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,) * dims
    values = values * dims if len(values) == 1 else values
    pairs = tuple(tuple(v) if isinstance(v, (tuple, list)) else (v, v) for v in values)
    return ((0, 0), *pairs) if dims == 1 else pairs


class Images:
    """(N, C, L), (N, C, H, W) or one example of these, as NHWC and back."""

    def __init__(self, x, dims):
        floats(x)
        if dims > 2:
            raise NotExpressible("nbnet has images of 1 and 2 dimensions")
        self.dims, self.single = dims, x.ndim == dims + 1
        self.x = self.there(x)

    def there(self, x):
        x = x[None] if self.single else x
        x = x[:, :, None] if self.dims == 1 else x
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def back(self, y):
        y = y.transpose(0, 3, 1, 2)
        y = y[:, :, 0] if self.dims == 1 else y
        return y[0] if self.single else y


# ------------------------------------------------------------------------------------------------- convolution


def conv(dims, data, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    images = Images(data, dims)
    w = weight.reshape(*weight.shape[:2], *both(weight.shape[2:], dims)).transpose(2, 3, 1, 0)
    options = {"stride": both(stride, dims), "dilation": both(dilation, dims), "groups": groups}
    around, x, unpad = sides(padding, dims), images.x, None
    if padding_mode != "zeros":
        if isinstance(around, str):
            extents = [(k - 1) * d for k, d in zip(w.shape[:2], options["dilation"])]
            around = tuple((n // 2, n - n // 2) for n in extents) if around == "same" else ((0, 0), (0, 0))
        tables = [taps.padded(n, *pair, padding_mode) for n, pair in zip(x.shape[1:3], around)]
        (x, unpad), around = F.resample_forward(x, *tables, backend=BACKEND), "valid"
    y, saved = F.conv2d_forward(x, np.ascontiguousarray(w), bias, padding=around, **options, backend=BACKEND)

    def backward(dy):
        dx, dweight, dbias = F.conv2d_backward(images.there(dy), saved)
        dx = dx if unpad is None else F.resample_backward(dx, unpad)
        return {"data": images.back(dx), "weight": dweight.transpose(3, 2, 0, 1).reshape(weight.shape), "bias": dbias}

    return images.back(y), backward


def conv_transpose(dims, data, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    images = Images(data, dims)
    w = weight.reshape(*weight.shape[:2], *both(weight.shape[2:], dims)).transpose(2, 3, 1, 0)
    extra = both(output_padding, dims)
    options = {"stride": both(stride, dims), "dilation": both(dilation, dims), "output_padding": (0, extra[1]) if dims == 1 else extra}
    around = sides(padding, dims)
    y, saved = F.conv_transpose2d_forward(
        images.x, np.ascontiguousarray(w), bias, padding=around, groups=groups, **options, backend=BACKEND
    )

    def backward(dy):
        dx, dweight, dbias = F.conv_transpose2d_backward(images.there(dy), saved)
        return {"data": images.back(dx), "weight": dweight.transpose(3, 2, 0, 1).reshape(weight.shape), "bias": dbias}

    return images.back(y), backward


def linear(data, weight, bias=None):
    floats(data, weight)
    rows = data.reshape(-1, data.shape[-1])
    y, saved = F.dense_forward(rows, np.ascontiguousarray(weight.T), bias, backend=BACKEND)

    def backward(dy):
        dx, dweight, dbias = F.dense_backward(dy.reshape(-1, dy.shape[-1]), saved)
        return {"data": dx.reshape(data.shape), "weight": dweight.T, "bias": dbias}

    return y.reshape(*data.shape[:-1], -1), backward


# ----------------------------------------------------------------------------------------------------- pooling


def max_pool(dims, data, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    images = Images(data, dims)
    if set(both(dilation, dims)) != {1}:
        raise NotExpressible("dilated pooling is left out on purpose")
    if return_indices:
        raise NotExpressible("indices of the maxima are left out on purpose")
    steps = None if stride is None or stride == [] else both(stride, dims)
    y, saved = F.max_pool2d_forward(images.x, both(kernel_size, dims), steps, sides(padding, dims), ceil_mode=ceil_mode, backend=BACKEND)
    return images.back(y), lambda dy: {"data": images.back(F.max_pool2d_backward(images.there(dy), saved))}


def avg_pool(dims, data, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    images = Images(data, dims)
    if divisor_override is not None:
        raise NotExpressible("a divisor of its own: AvgPool2D divides by the number of pixels")
    steps = None if stride is None or stride == [] else both(stride, dims)
    options = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    y, saved = F.avg_pool2d_forward(images.x, both(kernel_size, dims), steps, sides(padding, dims), **options, backend=BACKEND)
    return images.back(y), lambda dy: {"data": images.back(F.avg_pool2d_backward(images.there(dy), saved))}


def adaptive_avg_pool(dims, data, output_size):
    images = Images(data, dims)
    size = [n if asked is None else asked for n, asked in zip(images.x.shape[1:3], both(output_size, dims))]
    if 0 in size:
        raise NotExpressible("an array without elements")
    y, saved = F.adaptive_avg_pool2d_forward(images.x, tuple(size), backend=BACKEND)
    return images.back(y), lambda dy: {"data": images.back(F.adaptive_avg_pool2d_backward(images.there(dy), saved))}


# -------------------------------------------------------------------------------------------------- resampling


def along_axes(data, tables):
    """Resampling of any axes, two at a time: {axis: F.Taps}."""
    floats(data)
    y, steps = data, []
    items = sorted((axis % data.ndim, table) for axis, table in tables.items())
    for i in range(0, len(items), 2):
        pair = items[i : i + 2]
        if len(pair) == 1:
            other = next((axis for axis in range(y.ndim) if axis != pair[0][0]), None)
            if other is None:
                line, saved = F.resample_forward(y[None, None, :, None], taps.same(1), pair[0][1], backend=BACKEND)
                return line[0, 0, :, 0], lambda dy, saved=saved: {"data": F.resample_backward(dy[None, None, :, None], saved)[0, 0, :, 0]}
            pair = sorted([*pair, (other, taps.same(y.shape[other]))])
        axes = [axis for axis, _ in pair]
        moved = np.moveaxis(y, axes, (-2, -1))
        out, saved = F.resample_forward(
            np.ascontiguousarray(moved).reshape(-1, *moved.shape[-2:], 1), *(table for _, table in pair), backend=BACKEND
        )
        steps.append((axes, saved))
        y = np.moveaxis(out.reshape(*moved.shape[:-2], *out.shape[1:3]), (-2, -1), axes)

    def backward(dy):
        for axes, saved in reversed(steps):
            moved = np.moveaxis(dy, axes, (-2, -1))
            dx = F.resample_backward(np.ascontiguousarray(moved).reshape(-1, *moved.shape[-2:], 1), saved)
            dy = np.moveaxis(dx.reshape(*moved.shape[:-2], *dx.shape[1:3]), (-2, -1), axes)
        return {"data": dy}

    return y, backward


def pad(data, pairs, mode="zeros", value=0):
    """pairs: {axis: (before, behind)}."""
    if mode == "zeros" and value not in (0, None):
        raise NotExpressible("padding with a number other than 0")
    try:
        return along_axes(data, {axis: taps.padded(data.shape[axis], *pair, mode) for axis, pair in pairs.items() if any(pair)})
    except ValueError as error:
        raise NotExpressible(str(error)) from None


# ------------------------------------------------------------------------------------------------------- norms


def _channels_last(data):
    return np.ascontiguousarray(np.moveaxis(data, 1, -1))


def group_norm(data, num_groups, weight=None, bias=None, eps=1e-5):
    floats(data, weight, bias)
    y, saved = F.group_norm_forward(_channels_last(data), weight, bias, num_groups, eps=eps, backend=BACKEND)

    def backward(dy):
        dx, dweight, dbias = F.group_norm_backward(_channels_last(dy), saved)
        return {"data": np.moveaxis(dx, -1, 1), "weight": dweight, "bias": dbias}

    return np.moveaxis(y, -1, 1), backward


def layer_norm(data, normalized_shape, weight=None, bias=None, eps=1e-5, saved_too=False):
    floats(data, weight, bias)
    axes = tuple(range(-len(normalized_shape), 0))
    y, saved = F.layer_norm_forward(data, weight, bias, axes=axes, eps=eps, backend=BACKEND)
    back = lambda dy: dict(zip(("data", "weight", "bias"), F.layer_norm_backward(dy, saved)))  # noqa: E731
    return (y, back, saved) if saved_too else (y, back)


def rms_norm(data, normalized_shape, weight=None, eps=None):
    floats(data, weight)
    axes, eps = tuple(range(-len(normalized_shape), 0)), np.finfo(data.dtype).eps if eps is None else eps
    y, saved = F.rms_norm_forward(data, weight, axes=axes, eps=float(eps), backend=BACKEND)
    return y, lambda dy: dict(zip(("data", "weight"), F.rms_norm_backward(dy, saved)))


def batch_norm(data, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    floats(data, weight, bias)
    statistics = {} if training else {"mean": running_mean, "var": running_var}
    y, saved = F.batch_norm_forward(_channels_last(data), weight, bias, eps=eps, backend=BACKEND, **statistics)

    def backward(dy):
        dx, dweight, dbias = F.batch_norm_backward(_channels_last(dy), saved)
        return {"data": np.moveaxis(dx, -1, 1), "weight": dweight, "bias": dbias}

    return np.moveaxis(y, -1, 1), backward


# ------------------------------------------------------------------------------------- activations and the rest


def activation(name, data, **options):
    floats(data)
    forward = getattr(F, f"{name}_forward", None)
    if forward is not None:
        y, saved = forward(data, **options, backend=BACKEND)
        return y.reshape(data.shape), lambda dy: {"data": getattr(F, f"{name}_backward")(dy.reshape(y.shape), saved)}
    if name not in LAYERS:
        raise NotExpressible(f"nbnet has no activation {name}")
    layer = getattr(nb, LAYERS[name])(**options)
    x = data.reshape(1, *(data.shape or (1,)))
    layer.build(x.shape[1:], backend=BACKEND, dtype=x.dtype)
    y, saved = layer.forward(x, train=True)
    return y.reshape(data.shape), lambda dy: {"data": layer.backward(dy.reshape(x.shape), saved).reshape(data.shape)}


def of_rows(name, data, dim):
    """softmax and log_softmax, along any axis."""
    floats(data)
    x = np.moveaxis(data, dim, -1) if data.ndim else data.reshape(1)
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    forward, backward = getattr(F, f"{name}_forward", None), getattr(F, f"{name}_backward", None)
    if forward is None:
        if name != "softmax":
            raise NotExpressible(f"nbnet has no {name}")
        layer = nb.Softmax()
        layer.build(rows.shape[1:], backend=BACKEND, dtype=rows.dtype)
        y, saved = layer.forward(rows, train=True)
        backward = layer.backward
    else:
        y, saved = forward(rows, backend=BACKEND)

    def back(z):
        return np.moveaxis(z.reshape(x.shape), -1, dim).reshape(data.shape)

    return back(y), lambda dy: {
        "data": back(
            backward(np.ascontiguousarray(np.moveaxis(dy.reshape(data.shape), dim, -1) if data.ndim else dy).reshape(rows.shape), saved)
        )
    }


def prelu(data, weight):
    """weight: one number, or one for each channel, the second axis."""
    floats(data, weight)
    if not hasattr(F, "prelu_forward"):
        raise NotExpressible("nbnet has no activation prelu")
    if weight.size == 1:
        there, back = lambda x: x.reshape(-1, 1), lambda x: x.reshape(data.shape)
    elif data.ndim > 1 and weight.size == data.shape[1]:
        there, back = _channels_last, lambda x: np.moveaxis(x, -1, 1)
    else:
        raise NotExpressible("a slope for each number: PReLU has one for each channel")
    y, saved = F.prelu_forward(there(data), weight.reshape(-1), backend=BACKEND)

    def backward(dy):
        dx, dweight = F.prelu_backward(there(dy), saved)
        return {"data": back(dx), "weight": dweight.reshape(weight.shape)}

    return back(y), backward


def cross_entropy(data, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    floats(data)
    if weight is not None and not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise NotExpressible("weights of classes below 0")
    logits = np.ascontiguousarray(np.moveaxis(data, 1, -1) if data.ndim > 1 else data[None]).reshape(-1, data.shape[min(1, data.ndim - 1)])
    soft = target.dtype.kind == "f"
    if soft and not ((target >= 0).all() and np.allclose(target.sum(axis=min(1, data.ndim - 1)), 1)):
        raise NotExpressible("targets that are no probabilities")
    if soft:
        targets = np.ascontiguousarray(np.moveaxis(target, 1, -1) if data.ndim > 1 else target[None]).reshape(logits.shape)
        count = len(targets)
    else:
        targets = target.reshape(-1)
        kept = targets[targets != ignore_index]
        if not kept.size:
            raise NotExpressible("an array without elements")
        count = len(kept) if weight is None else weight[kept].sum()  # PyTorch divides by it
    loss = nb.losses.SoftmaxCrossEntropy(label_smoothing, weight, None if soft else ignore_index, reduction="sum")
    if reduction == "none":  # one row at a time: nbnet returns the sum of the rows
        rows = [loss(logits[i : i + 1], targets[i : i + 1], backend=BACKEND).total for i in range(len(logits))]
        shape = target.shape[:1] + target.shape[2:] if soft and data.ndim > 1 else () if soft else target.shape
        return np.array(rows, data.dtype).reshape(shape), None
    result = loss(logits, targets, backend=BACKEND)
    divisor = count if reduction == "mean" else 1

    def backward(dy):
        gradient = result.gradient * (dy / divisor)
        moved = np.moveaxis(data, 1, -1).shape if data.ndim > 1 else (1, *data.shape)
        gradient = gradient.reshape(moved)
        return {"data": np.moveaxis(gradient, -1, 1) if data.ndim > 1 else gradient[0]}

    return np.asarray(result.total / divisor, data.dtype), backward


def loss_of_outputs(loss, data, target, reduction="mean"):
    """Of nb.losses.Elementwise: the mean or the sum over all numbers."""
    floats(data, target)
    if reduction == "none" or data.shape != target.shape or data.ndim == 0:
        raise NotExpressible("nbnet's losses return the sum over rows of equal shapes")
    result = loss(data, target, backend=BACKEND)
    factor = 1 if reduction == "mean" else data.size
    return np.asarray(result.total / len(data) * factor, data.dtype), lambda dy: {"data": result.gradient * dy * factor}


def mse_loss(data, target, reduction="mean"):
    return loss_of_outputs(nb.losses.mean_squared_error, data, target, reduction)


def l1_loss(data, target, reduction="mean"):
    return loss_of_outputs(nb.losses.mean_absolute_error, data, target, reduction)


def huber_loss(data, target, reduction="mean", delta=1.0):
    return loss_of_outputs(nb.losses.Huber(delta), data, target, reduction)


def binary_cross_entropy(data, target, weight=None, reduction="mean", pos_weight=None, from_logits=True):
    if weight is not None or pos_weight is not None:
        raise NotExpressible("weights of all numbers, or their gradient")
    return loss_of_outputs(nb.losses.BinaryCrossEntropy(from_logits), data, target, reduction)


def dropout(data, p=0.5, training=True):
    floats(data)
    if training and 0 < p < 1:
        raise NotExpressible("other random numbers")
    if training and p == 1:
        raise NotExpressible("a rate of 1: nbnet drops with a probability below 1")
    y, saved = F.dropout_forward(data, p if training else 0.0, seed=0, train=training, backend=BACKEND)
    return y.reshape(data.shape), lambda dy: {"data": F.dropout_backward(dy.reshape(y.shape), saved) if training else dy}


def joined(name, *inputs):
    """Concat (along the last axis), Add and Multiply of several arrays."""
    floats(*inputs)
    if not hasattr(nb, name):
        raise NotExpressible(f"nbnet has no {name}")
    if name != "Concat" and len({x.shape for x in inputs}) > 1:
        raise NotExpressible(f"shapes {[x.shape for x in inputs]}: {name} takes equal shapes")
    layer = getattr(nb, name)()
    arrays = tuple(np.ascontiguousarray(x.reshape(1, *x.shape) if x.ndim else x.reshape(1, 1)) for x in inputs)
    layer.build(tuple(x.shape[1:] for x in arrays), backend=BACKEND, dtype=arrays[0].dtype)
    y, _ = layer.forward(arrays)
    return y[0] if inputs[0].ndim else y.reshape(()), None
