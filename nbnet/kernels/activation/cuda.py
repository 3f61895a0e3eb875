"""Activations on CUDA: four elements per thread; for softmax a group of neighbouring threads per row."""

import math

from numba import cuda

from nbnet.kernels.gpu.activations import logistic, sigmoid_slope, tanh_slope
from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import elementwise, load, row_maximum, row_sum, rows, store

# -------------------------------------------------------------------------------------------------------- relu


@formula
def _relu(x, zero):
    return zero if x <= zero else x  # NaN <= 0 is false: NaN passes


@kernel
def _relu_forward(x, size, y):
    at, zero = 4 * cuda.grid(1), x.dtype.type(0)
    v = load(x, at, size)
    store(y, at, size, (_relu(v[0], zero), _relu(v[1], zero), _relu(v[2], zero), _relu(v[3], zero)))


def relu_forward(x, y):
    elementwise(_relu_forward, x.size, x, x.size, y)


@formula
def _relu_slope(dy, y, zero):
    return zero if y <= zero else dy


@kernel
def _relu_backward(dy, y, size, dx):
    at, zero = 4 * cuda.grid(1), y.dtype.type(0)
    g, v = load(dy, at, size), load(y, at, size)
    out = _relu_slope(g[0], v[0], zero), _relu_slope(g[1], v[1], zero), _relu_slope(g[2], v[2], zero), _relu_slope(g[3], v[3], zero)
    store(dx, at, size, out)


def relu_backward(dy, y, dx):
    elementwise(_relu_backward, dy.size, dy, y, dy.size, dx)


# -------------------------------------------------------------------------------------------------- leaky_relu


@formula
def _leaky(sign, value, slope):
    return value if sign > 0 else slope * value


@kernel
def _leaky_relu(sign, value, slope, size, out):
    at = 4 * cuda.grid(1)
    s, v = load(sign, at, size), load(value, at, size)
    store(out, at, size, (_leaky(s[0], v[0], slope), _leaky(s[1], v[1], slope), _leaky(s[2], v[2], slope), _leaky(s[3], v[3], slope)))


def leaky_relu_forward(x, slope, y):
    elementwise(_leaky_relu, x.size, x, x, x.dtype.type(slope), x.size, y)


def leaky_relu_backward(dy, y, slope, dx):
    elementwise(_leaky_relu, dy.size, y, dy, dy.dtype.type(slope), dy.size, dx)


# -------------------------------------------------------------------------------------------------------- tanh


@kernel
def _tanh_forward(x, size, y):
    at = 4 * cuda.grid(1)
    v = load(x, at, size)
    store(y, at, size, (math.tanh(v[0]), math.tanh(v[1]), math.tanh(v[2]), math.tanh(v[3])))


def tanh_forward(x, y):
    elementwise(_tanh_forward, x.size, x, x.size, y)


@kernel
def _tanh_backward(dy, y, size, dx):
    at, one = 4 * cuda.grid(1), y.dtype.type(1)
    g, v = load(dy, at, size), load(y, at, size)
    out = tanh_slope(g[0], v[0], one), tanh_slope(g[1], v[1], one), tanh_slope(g[2], v[2], one), tanh_slope(g[3], v[3], one)
    store(dx, at, size, out)


def tanh_backward(dy, y, dx):
    elementwise(_tanh_backward, dy.size, dy, y, dy.size, dx)


# ----------------------------------------------------------------------------------------------------- sigmoid


@kernel
def _sigmoid_forward(x, size, y):
    at, one = 4 * cuda.grid(1), x.dtype.type(1)
    v = load(x, at, size)
    store(y, at, size, (logistic(v[0], one), logistic(v[1], one), logistic(v[2], one), logistic(v[3], one)))


def sigmoid_forward(x, y):
    elementwise(_sigmoid_forward, x.size, x, x.size, y)


@kernel
def _sigmoid_backward(dy, y, size, dx):
    at, one = 4 * cuda.grid(1), y.dtype.type(1)
    g, v = load(dy, at, size), load(y, at, size)
    out = sigmoid_slope(g[0], v[0], one), sigmoid_slope(g[1], v[1], one), sigmoid_slope(g[2], v[2], one), sigmoid_slope(g[3], v[3], one)
    store(dx, at, size, out)


def sigmoid_backward(dy, y, dx):
    elementwise(_sigmoid_backward, dy.size, dy, y, dy.size, dx)


# ----------------------------------------------------------------------------------------------------- softmax


@kernel
def _softmax_forward(x, count, classes, y, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0  # all threads stay for the reductions
    largest = x[min(row, count - 1) * classes]
    for c in range(first, last, group):
        largest = max(largest, x[row * classes + c])
    largest, _ = row_maximum(largest, 0, group, x)
    total = x.dtype.type(0)
    for c in range(first, last, group):
        e = math.exp(x[row * classes + c] - largest)
        y[row * classes + c] = e
        total += e
    share = x.dtype.type(1) / row_sum(total, group, x)
    for c in range(first, last, group):
        y[row * classes + c] *= share


def softmax_forward(x, y):
    rows(_softmax_forward, x.shape[0], x.shape[1], x, x.shape[0], x.shape[1], y)


@kernel
def _softmax_backward(dy, y, count, classes, dx, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0
    dot = y.dtype.type(0)
    for c in range(first, last, group):
        dot += dy[row * classes + c] * y[row * classes + c]
    dot = row_sum(dot, group, y)
    for c in range(first, last, group):
        dx[row * classes + c] = y[row * classes + c] * (dy[row * classes + c] - dot)


def softmax_backward(dy, y, dx):
    rows(_softmax_backward, y.shape[0], y.shape[1], dy, y, y.shape[0], y.shape[1], dx)
