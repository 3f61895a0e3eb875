"""The dense layer on CUDA: a convolution of images of one pixel."""

from nbnet.kernels.batchnorm.cuda import backward_apply
from nbnet.kernels.conv2d import cuda as conv2d
from nbnet.kernels.gpu import device


def _images(rows):
    return rows.reshape(rows.shape[0], 1, 1, rows.shape[1])


def forward(x, weight, bias, slope, y, partials, mean, m2):
    weight = weight.reshape(1, 1, *weight.shape)
    conv2d.forward(_images(x), weight, bias, slope, 1, 1, 0, 0, None, None, _images(y), partials, mean, m2)


def backward_data(dy, weight, turned, dx):
    conv2d.backward_data(_images(dy), weight.reshape(1, 1, *weight.shape), 1, 1, 0, 0, None, None, None, _images(dx))


def backward_weights(x, dy, dweight, dbias):
    conv2d.backward_weights(_images(x), _images(dy), 1, 1, 0, 0, None, None, dweight.reshape(1, 1, *dweight.shape), dbias)


def backward_weights_norm(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    through = device.pool().empty(dy.shape, dy.dtype)
    backward_apply(dy, y, None, center, a, b, 1.0, a, b, c, through)  # slope 1: there is no activation, and no scale and shift
    backward_weights(x, through, dweight, dbias)
