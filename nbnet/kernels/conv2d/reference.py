"""Convolution in NumPy: the definition. See the contract in `nbnet.kernels.conv2d`.

One kernel position at a time: position (kh, kw) multiplies a strided window of the padded input by a (J, O/G) matrix for each group.
"""

import numpy as np


def forward(
    x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, packed, ready, strips, y, partials, mean, m2
):
    stride, dilation = (stride_h, stride_w), (dilation_h, dilation_w)
    padded = _pad(x, y.shape, weight.shape, stride, (pad_top, pad_left), dilation)
    y[:] = bias
    for (kh, kw), window in _windows(padded, y.shape, weight.shape, stride, dilation):
        for i, o in _groups(x, weight):
            y[..., o] += window[..., i] @ weight[kh, kw, :, o]
    if slope != 1:
        np.copyto(y, slope * y if slope > 0 else 0, where=y <= 0)
    if len(partials):
        mean[:] = y.mean(axis=(0, 1, 2), dtype=np.float64)
        m2[:] = ((y - mean) ** 2).sum(axis=(0, 1, 2))


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, transposed, packed, strips, dx):
    stride, dilation = (stride_h, stride_w), (dilation_h, dilation_w)
    padded = _pad(np.zeros_like(dx), dy.shape, weight.shape, stride, (pad_top, pad_left), dilation)
    for (kh, kw), window in _windows(padded, dy.shape, weight.shape, stride, dilation):
        for i, o in _groups(dx, weight):
            window[..., i] += dy[..., o] @ weight[kh, kw, :, o].T
    dx[:] = padded[:, pad_top : pad_top + dx.shape[1], pad_left : pad_left + dx.shape[2]]


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, strips, partials, dweight, dbias):
    stride, dilation = (stride_h, stride_w), (dilation_h, dilation_w)
    padded = _pad(x, dy.shape, dweight.shape, stride, (pad_top, pad_left), dilation)
    for (kh, kw), window in _windows(padded, dy.shape, dweight.shape, stride, dilation):
        for i, o in _groups(x, dweight):
            dweight[kh, kw, :, o] = np.tensordot(window[..., i], dy[..., o], axes=([0, 1, 2], [0, 1, 2]))
    dbias[:] = dy.sum(axis=(0, 1, 2), dtype=np.float64)[: dbias.size]


def _groups(x, weight):
    """For each group, its input channels and its output channels."""
    inputs, outputs = weight.shape[2:]
    groups = x.shape[3] // inputs
    outputs //= groups
    return [(slice(g * inputs, (g + 1) * inputs), slice(g * outputs, (g + 1) * outputs)) for g in range(groups)]


def _pad(x, out_shape, kernel, stride, pad, dilation):
    """x with zeros around it, far enough for the last window."""
    sizes = [(0, 0)]
    for axis in (0, 1):
        end = (out_shape[axis + 1] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        sizes.append((pad[axis], max(0, end - pad[axis] - x.shape[axis + 1])))
    return np.pad(x, [*sizes, (0, 0)])


def _windows(padded, out_shape, kernel, stride, dilation):
    """For each kernel position, the view of the padded image that it meets: (N, OH, OW, I)."""
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            rows, columns = padded[:, kh * dilation[0] :: stride[0]], slice(kw * dilation[1], None, stride[1])
            yield (kh, kw), rows[:, : out_shape[1], columns][:, :, : out_shape[2]]
