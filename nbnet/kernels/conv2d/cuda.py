"""Convolution on CUDA: the matrix products of nbnet.kernels.gpu.products; groups one after the other, on copies of their channels."""

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.columns import move_columns
from nbnet.kernels.gpu.products import convolve, convolve_transposed, correlate
from nbnet.kernels.gpu.reductions import moments


def _take(array, group, groups):
    """The columns (last axis) of a group, in an array of their own."""
    *rows, columns = array.shape
    own = device.pool().empty((*rows, columns // groups), array.dtype)
    move_columns(array, columns, group * own.shape[-1], own, own.shape[-1], 0, own.shape[-1])
    return own


def _put(own, group, array):
    """Write what _take gives."""
    move_columns(own, own.shape[-1], 0, array, array.shape[-1], group * own.shape[-1], own.shape[-1])


def forward(
    x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, packed, ready, strips, y, partials, mean, m2
):
    """mean and m2 may be None, where no statistics are needed."""
    if partials is not None and partials.shape[0] == 0:
        mean = m2 = None
    geometry = weight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), (1, 1)
    groups, dilation = x.shape[3] // weight.shape[2], (dilation_h, dilation_w)
    if groups == 1:
        convolve(x, weight, bias, slope, *geometry, y, mean, m2, dilation)
        return
    for group in range(groups):
        part = device.pool().empty((*y.shape[:3], y.shape[3] // groups), y.dtype)
        own_bias = None if bias is None else _take(bias, group, groups)
        convolve(_take(x, group, groups), _take(weight, group, groups), own_bias, slope, *geometry, part, dilation=dilation)
        _put(part, group, y)
    if mean is not None:
        moments(y.reshape(-1, y.shape[3]), None, None, mean, m2)


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, transposed, packed, strips, dx):
    geometry = weight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), (dilation_h, dilation_w)
    groups = dx.shape[3] // weight.shape[2]
    if groups == 1:
        convolve_transposed(dy, weight, *geometry, dx)
        return
    for group in range(groups):
        part = device.pool().empty((*dx.shape[:3], weight.shape[2]), dx.dtype)
        convolve_transposed(_take(dy, group, groups), _take(weight, group, groups), *geometry, part)
        _put(part, group, dx)


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, strips, partials, dweight, dbias):
    geometry = dweight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), (dilation_h, dilation_w)
    groups = x.shape[3] // dweight.shape[2]
    if groups == 1:
        correlate(x, dy, *geometry, dweight, dbias)
        return
    for group in range(groups):
        part = device.pool().empty((*dweight.shape[:3], dweight.shape[3] // groups), dweight.dtype)
        part_of_bias = device.pool().empty((dbias.size // groups,), dbias.dtype)
        correlate(_take(x, group, groups), _take(dy, group, groups), *geometry, part, part_of_bias)
        _put(part, group, dweight)
        if dbias.size:
            _put(part_of_bias, group, dbias)
