"""Convolution on CUDA: the matrix products of nbnet.kernels.gpu.products."""

from nbnet.kernels.gpu.products import convolve, convolve_transposed, correlate


def forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, packed, strips, y, partials, mean, m2):
    """mean and m2 may be None, where no statistics are needed."""
    if partials is not None and partials.shape[0] == 0:
        mean = m2 = None
    convolve(x, weight, bias, slope, weight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), (1, 1), y, mean, m2)


def backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, transposed, packed, strips, dx):
    convolve_transposed(dy, weight, weight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), dx)


def backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, strips, partials, dweight, dbias):
    correlate(x, dy, dweight.shape[:2], (stride_h, stride_w), (pad_top, pad_left), dweight, dbias)
