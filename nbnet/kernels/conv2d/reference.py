"""Convolution in NumPy: the definition. See the contract in `nbnet.kernels.conv2d`.

One kernel position at a time: position (kh, kw) multiplies a strided window of the padded input by an (I, O) matrix.
"""

import numpy as np


def forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, packed, strips, y, partials, mean, m2):
    padded = _pad(x, y.shape, weight.shape[:2], stride_h, stride_w, pad_top, pad_left)
    y[:] = bias
    for (kh, kw), window in _windows(padded, y.shape, weight.shape[:2], stride_h, stride_w):
        y += window @ weight[kh, kw]
    if slope != 1:
        np.copyto(y, slope * y if slope > 0 else 0, where=y <= 0)
    if len(partials):
        mean[:] = y.mean(axis=(0, 1, 2), dtype=np.float64)
        m2[:] = ((y - mean) ** 2).sum(axis=(0, 1, 2))


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, transposed, packed, strips, dx):
    kernel = weight.shape[:2]
    padded = _pad(np.zeros_like(dx), dy.shape, kernel, stride_h, stride_w, pad_top, pad_left)
    for (kh, kw), window in _windows(padded, dy.shape, kernel, stride_h, stride_w):
        window += dy @ weight[kh, kw].T
    dx[:] = padded[:, pad_top : pad_top + dx.shape[1], pad_left : pad_left + dx.shape[2]]


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, strips, partials, dweight, dbias):
    padded = _pad(x, dy.shape, dweight.shape[:2], stride_h, stride_w, pad_top, pad_left)
    for (kh, kw), window in _windows(padded, dy.shape, dweight.shape[:2], stride_h, stride_w):
        dweight[kh, kw] = np.tensordot(window, dy, axes=([0, 1, 2], [0, 1, 2]))
    dbias[:] = dy.sum(axis=(0, 1, 2), dtype=np.float64)[: dbias.size]


def _pad(x, out_shape, kernel, stride_h, stride_w, pad_top, pad_left):
    """x with zeros around it, far enough for the last window."""
    bottom = max(0, (out_shape[1] - 1) * stride_h + kernel[0] - pad_top - x.shape[1])
    right = max(0, (out_shape[2] - 1) * stride_w + kernel[1] - pad_left - x.shape[2])
    return np.pad(x, ((0, 0), (pad_top, bottom), (pad_left, right), (0, 0)))


def _windows(padded, out_shape, kernel, stride_h, stride_w):
    """For each kernel position, the view of the padded image that it meets: (N, OH, OW, I)."""
    height, width = out_shape[1] * stride_h, out_shape[2] * stride_w
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            yield (kh, kw), padded[:, kh : kh + height : stride_h, kw : kw + width : stride_w][:, : out_shape[1], : out_shape[2]]
