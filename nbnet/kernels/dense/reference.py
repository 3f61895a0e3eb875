"""The dense layer in NumPy: the definition. See the contract in `nbnet.kernels.dense`."""

import numpy as np


def forward(x, weight, bias, y):
    y[:] = x @ weight + bias


def backward_data(dy, weight_t, dx):
    dx[:] = dy @ weight_t


def backward_weights(x, dy, partials, dweight, dbias):
    dweight[:] = x.T @ dy
    dbias[:] = dy.sum(axis=0)


def transpose(weight, weight_t):
    np.copyto(weight_t, weight.T)
