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


def avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y):
    for (oh, ow), (rows, columns) in _windows(x.shape, y.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        pixels = _pixels(rows, oh * stride_h - pad_top, size_h, end_h) * _pixels(columns, ow * stride_w - pad_left, size_w, end_w)
        y[:, oh, ow] = x[:, rows, columns].sum(axis=(1, 2), dtype=np.float64) / pixels


def avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx):
    dx[:] = 0
    for (oh, ow), (rows, columns) in _windows(dx.shape, dy.shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
        pixels = _pixels(rows, oh * stride_h - pad_top, size_h, end_h) * _pixels(columns, ow * stride_w - pad_left, size_w, end_w)
        window = dx[:, rows, columns]
        window += (dy[:, oh, ow] / pixels)[:, None, None]


def _pixels(inside, first, size, end):
    """How many pixels count along one axis of a window that starts at `first`; `inside` is what lies in the image."""
    return min(first + size, end) - first if end else inside.stop - inside.start


def _windows(in_shape, out_shape, size_h, size_w, stride_h, stride_w, pad_top, pad_left):
    """For each output pixel, the rows and columns of the image in its window."""
    for oh in range(out_shape[1]):
        for ow in range(out_shape[2]):
            top, left = oh * stride_h - pad_top, ow * stride_w - pad_left
            rows = slice(max(top, 0), min(top + size_h, in_shape[1]))
            columns = slice(max(left, 0), min(left + size_w, in_shape[2]))
            yield (oh, ow), (rows, columns)
