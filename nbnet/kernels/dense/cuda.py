"""The dense layer on CUDA: a convolution of images of one pixel."""

from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.columns import gather
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import elementwise, load, multiply_add4, store, subtract4
from nbnet.kernels.gpu.products import convolve, convolve_transposed, correlate

PIXEL = (1, 1), (1, 1), (0, 0), (1, 1)  # kernel size, stride, padding, and then dilation, or the distance of pixels in `convolve`


def _images(rows):
    return rows.reshape(rows.shape[0], 1, 1, rows.shape[1])


def forward(x, weight, bias, slope, y, partials, mean, m2):
    convolve(_images(x), weight, bias, slope, *PIXEL, _images(y), mean, m2)


def backward_data(dy, weight, transposed, dx):
    convolve_transposed(_images(dy), weight, *PIXEL, _images(dx))


def backward_weights(x, dy, dweight, dbias):
    correlate(_images(x), _images(dy), *PIXEL, dweight, dbias)


@kernel
def _through_norm(dy, y, center, a, b, c, size, outputs, g):
    at = 4 * cuda.grid(1)
    d = subtract4(load(y, at, size), gather(center, at, outputs))
    rest = multiply_add4(gather(c, at, outputs), d, gather(b, at, outputs))
    store(g, at, size, multiply_add4(gather(a, at, outputs), load(dy, at, size), rest))


def backward_weights_norm(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    g = device.pool().empty(dy.shape, dy.dtype)
    elementwise(_through_norm, dy.size, dy, y, center, a, b, c, dy.size, dy.shape[1], g)
    backward_weights(x, g, dweight, dbias)
