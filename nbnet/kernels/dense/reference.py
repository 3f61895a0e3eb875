"""The dense layer in NumPy: the definition. See the contract in `nbnet.kernels.dense`."""

import numpy as np


def forward(x, weight, bias, slope, y, partials, mean, m2):
    y[:] = x @ weight + bias
    if slope != 1:
        np.copyto(y, slope * y if slope > 0 else 0, where=y <= 0)
    if mean is not None:
        mean[:] = y.mean(axis=0, dtype=np.float64)
        m2[:] = ((y - mean) ** 2).sum(axis=0)


def backward_data(dy, weight, transposed, dx):
    dx[:] = dy @ weight.T


def backward_weights(x, dy, dweight, dbias):
    dweight[:] = x.T @ dy
    dbias[:] = dy.sum(axis=0, dtype=np.float64)


def backward_weights_norm(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    backward_weights(x, a * dy + b + c * (y - center), dweight, dbias)
