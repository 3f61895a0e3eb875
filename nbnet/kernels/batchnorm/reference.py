"""Batch normalisation in NumPy: the definition. See the contract in `nbnet.kernels.batchnorm`."""

import numpy as np


def moments(x, weights, partials, mean, var):
    x = x.astype(np.float64, copy=False)
    w = np.ones((len(x), 1)) if weights is None else weights.astype(np.float64)
    total = w.sum(axis=0)
    mean[:] = (w * x).sum(axis=0) / total
    var[:] = (w * (x - mean) ** 2).sum(axis=0) / total


def apply(x, center, scale, shift, slope, y):
    z = (x - center) * scale + shift
    y[:] = np.where(z > 0, z, z.dtype.type(slope) * z)


def backward_reduce(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    g = _through_activation(dy, x, center, scale, shift, slope).astype(np.float64)
    sum_g[:] = g.sum(axis=0)
    sum_gx[:] = (g * (x - center)).sum(axis=0)


def backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    g = _through_activation(dy, x, center, scale, shift, slope)
    w = 1 if weights is None else weights
    dx[:] = a * g + w * (b + c * (x - center))


def _through_activation(dy, x, center, scale, shift, slope):
    z = (x - center) * scale + shift
    return np.where(z > 0, dy, dy.dtype.type(slope) * dy)
