"""Depthwise convolution in NumPy: the definition. See the contract in `nbnet.kernels.depthwise`.

One kernel position at a time: position (kh, kw) multiplies the part of the image that it meets by a number for each channel.
"""

import numpy as np


def forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, y, partials, mean, m2):
    y[:] = bias
    for tap, outputs, inputs in _taps(x, y, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w):
        y[outputs] += x[inputs] * weight[tap]
    if slope != 1:
        np.copyto(y, slope * y if slope > 0 else 0, where=y <= 0)
    if len(partials):
        mean[:] = y.mean(axis=(0, 1, 2), dtype=np.float64)
        m2[:] = ((y - mean) ** 2).sum(axis=(0, 1, 2))


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, dx):
    dx[:] = 0
    for tap, outputs, inputs in _taps(dx, dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w):
        dx[inputs] += dy[outputs] * weight[tap]


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, partials, dweight, dbias):
    dweight[:] = 0
    for tap, outputs, inputs in _taps(x, dy, dweight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w):
        dweight[tap] = (x[inputs] * dy[outputs]).sum(axis=(0, 1, 2), dtype=np.float64)
    dbias[:] = dy.sum(axis=(0, 1, 2), dtype=np.float64)[: dbias.size]


def _taps(x, y, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w):
    """For each position of the kernel, the outputs that it gives and the inputs that it meets, as indices."""
    for kh in range(weight.shape[0]):
        rows = _met(y.shape[1], x.shape[1], stride_h, kh * dilation_h - pad_top)
        for kw in range(weight.shape[1]):
            columns = _met(y.shape[2], x.shape[2], stride_w, kw * dilation_w - pad_left)
            yield (kh, kw), (slice(None), rows[0], columns[0]), (slice(None), rows[1], columns[1])


def _met(outputs, inputs, stride, offset):
    """The outputs o whose input o * stride + offset is inside, and these inputs."""
    first = max(0, -(offset // stride))
    last = max(first, min(outputs, (inputs - 1 - offset) // stride + 1))
    start = first * stride + offset
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride) if last > first else slice(0, 0)
