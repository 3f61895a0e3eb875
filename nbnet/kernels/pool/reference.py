"""Pooling in NumPy: the definition. See the contract in `nbnet.kernels.pool`."""

import numpy as np


def max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    for (oh, ow), (rows, columns) in _windows(x.shape, y.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        y[:, oh, ow] = x[:, rows, columns].max(axis=(1, 2))


def max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    dx[:] = 0
    images, channels = np.arange(x.shape[0])[:, None], np.arange(x.shape[3])
    for (oh, ow), (rows, columns) in _windows(x.shape, dy.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        window = x[:, rows, columns]
        winner = window.reshape(len(x), -1, x.shape[3]).argmax(axis=1)  # the first NaN, else the first maximum
        h, w = np.unravel_index(winner, window.shape[1:3])
        dx[images, rows.start + h, columns.start + w, channels] += dy[:, oh, ow]


def avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    for (oh, ow), (rows, columns) in _windows(x.shape, y.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        y[:, oh, ow] = x[:, rows, columns].mean(axis=(1, 2), dtype=np.float64)


def avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    dx[:] = 0
    for (oh, ow), (rows, columns) in _windows(dx.shape, dy.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        window = dx[:, rows, columns]
        window += (dy[:, oh, ow] / (window.shape[1] * window.shape[2]))[:, None, None]


def _windows(in_shape, out_shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
    """For each output pixel, the rows and columns of the image in its window."""
    for oh in range(out_shape[1]):
        for ow in range(out_shape[2]):
            top, left = oh * stride_h - pad_top, ow * stride_w - pad_left
            rows = slice(max(top, 0), min(top + size_h, in_shape[1]))
            columns = slice(max(left, 0), min(left + size_w, in_shape[2]))
            yield (oh, ow), (rows, columns)
