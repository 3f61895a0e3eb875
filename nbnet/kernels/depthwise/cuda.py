"""Depthwise convolution on CUDA: a thread computes one number of the result; neighbouring threads have neighbouring channels.

Backward gathers: a thread of dx reads the outputs whose windows contain its pixel. The gradient of the weights is summed in parts: a thread
adds up the products of one position of the kernel and one channel over a run of pixels, and another kernel adds up the parts in order.
"""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import activate
from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import THREADS, divide, run
from nbnet.kernels.gpu.pixels import check_pixels, offset, place
from nbnet.kernels.gpu.reductions import moments

RUN = 128  # pixels whose products are added up in T
PARTS = 256  # the most partial sums of a weight's gradient


def _launch(compiled, size, *args):
    check_pixels(*[arg for arg in args if type(arg) is tuple and len(arg) == 4])
    run(compiled, -(-size // THREADS), THREADS, *args)


# ---------------------------------------------------------------------------------------------------- forward


@kernel
def _depthwise(x, shape, weight, kernel_size, bias, biased, slope, stride, pad, dilation, out_shape, y):
    n, oh, ow, c = place(out_shape, 1)
    if n < out_shape[0]:
        total = bias[c] if biased else x.dtype.type(0)
        for kh in range(kernel_size[0]):
            h = oh * stride[0] + kh * dilation[0] - pad[0]
            for kw in range(kernel_size[1]):
                w = ow * stride[1] + kw * dilation[1] - pad[1]
                if h >= 0 and h < shape[1] and w >= 0 and w < shape[2]:
                    total += x[offset(shape, n, h, w, c)] * weight[(kh * kernel_size[1] + kw) * shape[3] + c]
        y[offset(out_shape, n, oh, ow, c)] = activate(total, slope) if slope != 1 else total


def forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, y, partials, mean, m2):
    """mean and m2 may be None, where no statistics are needed."""
    geometry = (stride_h, stride_w), (pad_top, pad_left), (dilation_h, dilation_w)
    epilogue = (weight if bias is None else bias, bias is not None, y.dtype.type(slope))
    _launch(_depthwise, y.size, x, x.shape, weight, weight.shape[:2], *epilogue, *geometry, y.shape, y)
    if mean is not None and (partials is None or partials.shape[0] > 0):
        moments(y.reshape(-1, y.shape[3]), None, None, mean, m2)


# ---------------------------------------------------------------------------------------------- backward_data


@formula
def _output_of(index, position, stride, outputs):
    """The output whose window has an input, counted from the padding, at a position; -1 if there is none."""
    if index < position:
        return -1
    output, rest = divide(index - position, stride)
    return output if rest == 0 and output < outputs else -1


@kernel
def _depthwise_transposed(dy, out_shape, weight, kernel_size, stride, pad, dilation, shape, dx):
    n, row, column, c = place(shape, 1)
    if n < shape[0]:
        total = dy.dtype.type(0)
        for kh in range(kernel_size[0]):
            oh = _output_of(row + pad[0], kh * dilation[0], stride[0], out_shape[1])
            for kw in range(kernel_size[1]):
                ow = _output_of(column + pad[1], kw * dilation[1], stride[1], out_shape[2])
                if oh >= 0 and ow >= 0:
                    total += dy[offset(out_shape, n, oh, ow, c)] * weight[(kh * kernel_size[1] + kw) * shape[3] + c]
        dx[offset(shape, n, row, column, c)] = total


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, dx):
    geometry = (stride_h, stride_w), (pad_top, pad_left), (dilation_h, dilation_w)
    _launch(_depthwise_transposed, dx.size, dy, dy.shape, weight, weight.shape[:2], *geometry, dx.shape, dx)


# ------------------------------------------------------------------------------------------- backward_weights


@kernel
def _depthwise_products(x, shape, dy, out_shape, kernel_size, stride, pad, dilation, pixels, part, taps, partials):
    """partials[k, tap, c]: the sum over the part's pixels of x times dy, and in the last row of taps of dy alone."""
    rest, c = divide(cuda.grid(1), shape[3])
    k, tap = divide(rest, taps + 1)
    kh, kw = divide(tap, kernel_size[1])
    if k * part < pixels:
        total = np.float64(0)
        for first in range(k * part, min(pixels, (k + 1) * part), RUN):
            run_of = dy.dtype.type(0)
            for pixel in range(first, min(pixels, (k + 1) * part, first + RUN)):
                rest, ow = divide(pixel, out_shape[2])
                n, oh = divide(rest, out_shape[1])
                h, w = oh * stride[0] + kh * dilation[0] - pad[0], ow * stride[1] + kw * dilation[1] - pad[1]
                if tap == taps:
                    run_of += dy[pixel * shape[3] + c]
                elif h >= 0 and h < shape[1] and w >= 0 and w < shape[2]:
                    run_of += dy[pixel * shape[3] + c] * x[offset(shape, n, h, w, c)]
            total += np.float64(run_of)
        partials[(k * (taps + 1) + tap) * shape[3] + c] = total


@kernel
def _merge_products(partials, parts, taps, channels, biased, dweight, dbias):
    """The sums of the parts, in order."""
    e = cuda.grid(1)
    if e < (taps + 1) * channels:
        total = np.float64(0)
        for k in range(parts):
            total += partials[k * (taps + 1) * channels + e]
        if e < taps * channels:
            dweight[e] = total
        elif biased:
            dbias[e - taps * channels] = total


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, partials, dweight, dbias):
    geometry = (stride_h, stride_w), (pad_top, pad_left), (dilation_h, dilation_w)
    channels, taps = dy.shape[3], dweight.shape[0] * dweight.shape[1]
    pixels = dy.size // channels
    part = max(RUN, -(-pixels // PARTS))
    parts = -(-pixels // part)
    sums = device.pool().empty((parts, taps + 1, channels), np.float64)
    args = x, x.shape, dy, dy.shape, dweight.shape[:2], *geometry, pixels, part, taps, sums
    _launch(_depthwise_products, parts * (taps + 1) * channels, *args)
    _launch(_merge_products, (taps + 1) * channels, sums, parts, taps, channels, dbias.size > 0, dweight, dbias)
