"""Activations in NumPy: the definition. See the contract in `nbnet.kernels.activation`."""

import numpy as np


def relu_forward(x, y):
    np.maximum(x, 0, out=y)


def relu_backward(dy, y, dx):
    dx[:] = np.where(y <= 0, 0, dy)


def leaky_relu_forward(x, slope, y):
    y[:] = np.where(x > 0, x, slope * x)


def leaky_relu_backward(dy, y, slope, dx):
    dx[:] = np.where(y > 0, dy, slope * dy)


def tanh_forward(x, y):
    np.tanh(x, out=y)


def tanh_backward(dy, y, dx):
    dx[:] = dy * (1 - y * y)


def sigmoid_forward(x, y):
    e = np.exp(-np.abs(x))
    y[:] = np.where(x < 0, e, 1) / (1 + e)


def sigmoid_backward(dy, y, dx):
    dx[:] = dy * (y * (1 - y))


def softmax_forward(x, y):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y[:] = e / e.sum(axis=1, keepdims=True, dtype=np.float64)


def softmax_backward(dy, y, dx):
    dot = (dy * y).sum(axis=1, keepdims=True, dtype=np.float64).astype(dy.dtype)
    dx[:] = y * (dy - dot)
