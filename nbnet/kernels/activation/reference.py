"""Activations in NumPy: the definition. See the contract in `nbnet.kernels.activation`."""

import math

import numpy as np

from nbnet.kernels.activations import GELU_TANH

QUIET = np.errstate(over="ignore", under="ignore", invalid="ignore")  # as in the compiled kernels
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


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
    y[:] = _sigmoid(x)


def sigmoid_backward(dy, y, dx):
    dx[:] = dy * (y * (1 - y))


@QUIET
def gelu_forward(x, y):
    y[:] = _times(x, _normal(x))


@QUIET
def gelu_backward(dy, x, dx):
    dx[:] = dy * (_normal(x) + _times(x, _density(x)))


@QUIET
def gelu_tanh_forward(x, y):
    y[:] = _times(x, _sigmoid(_cubic(x)))


@QUIET
def gelu_tanh_backward(dy, x, dx):
    s, other = _sigmoid(_cubic(x)), _sigmoid(-_cubic(x))
    dx[:] = dy * (s + _times(x * (GELU_TANH[0] + 3 * GELU_TANH[1] * x * x), s * other))


@QUIET
def silu_forward(x, y):
    y[:] = _times(x, _sigmoid(x))


@QUIET
def silu_backward(dy, x, dx):
    dx[:] = dy * (_sigmoid(x) + _times(x, _sigmoid(x) * _sigmoid(-x)))


@QUIET
def mish_forward(x, y):
    y[:] = _times(x, np.tanh(np.logaddexp(x, 0)))


@QUIET
def mish_backward(dy, x, dx):
    y = np.tanh(np.logaddexp(x, 0))
    dx[:] = dy * (y + _times(x, _sigmoid(x) / np.cosh(np.logaddexp(x, 0)) ** 2))


@QUIET
def elu_forward(x, alpha, outer, inner, y):
    y[:] = outer * np.where(x > 0, x, alpha * np.expm1(np.minimum(inner * x, 0)))


@QUIET
def elu_backward(dy, x, alpha, outer, inner, dx):
    dx[:] = dy * (outer * np.where(x > 0, 1, alpha * inner * np.exp(np.minimum(inner * x, 0))))


@QUIET
def softplus_forward(x, beta, threshold, y):
    y[:] = np.where(beta * x > threshold, x, np.logaddexp(beta * x, 0) / beta)


@QUIET
def softplus_backward(dy, x, beta, threshold, dx):
    dx[:] = dy * np.where(beta * x > threshold, 1, _sigmoid(beta * x))


@QUIET
def logsigmoid_forward(x, y):
    y[:] = -np.logaddexp(-x, 0)


@QUIET
def logsigmoid_backward(dy, x, dx):
    dx[:] = dy * _sigmoid(-x)


@QUIET
def softsign_forward(x, y):
    y[:] = np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x)))


@QUIET
def softsign_backward(dy, x, dx):
    dx[:] = dy * (1 / (1 + np.abs(x))) ** 2


@QUIET
def hardswish_forward(x, y):
    y[:] = np.where(x <= -3, 0, np.where(x >= 3, x, x * ((x + 3) / 6)))


@QUIET
def hardswish_backward(dy, x, dx):
    dx[:] = np.where(x <= -3, 0, np.where(x >= 3, dy, dy * (x / 3 + 0.5)))


@QUIET
def hardsigmoid_forward(x, y):
    y[:] = np.where(x <= -3, 0, np.where(x >= 3, 1, (x + 3) / 6))


@QUIET
def hardsigmoid_backward(dy, x, dx):
    dx[:] = np.where((x > -3) & (x < 3), dy / 6, 0)


def hardtanh_forward(x, low, high, y):
    y[:] = np.minimum(np.maximum(x, low), high)


def hardtanh_backward(dy, y, low, high, dx):
    dx[:] = np.where((y <= low) | (y >= high), 0, dy)


@QUIET
def prelu_forward(x, weight, y):
    y[:] = np.where(x > 0, x, weight * x)


@QUIET
def prelu_backward(dy, x, weight, partials, dx, dweight):
    sums = np.where(x > 0, 0, dy.astype(np.float64) * x).sum(axis=0)
    dx[:] = np.where(x > 0, dy, weight * dy)
    dweight[:] = sums if dweight.size == sums.size else sums.sum()


def softmax_forward(x, y):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y[:] = e / e.sum(axis=1, keepdims=True, dtype=np.float64)


def softmax_backward(dy, y, dx):
    dot = (dy * y).sum(axis=1, keepdims=True, dtype=np.float64).astype(dy.dtype)
    dx[:] = y * (dy - dot)


def log_softmax_forward(x, y):
    shifted = x - x.max(axis=1, keepdims=True)
    y[:] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64))


def log_softmax_backward(dy, y, dx):
    dx[:] = dy - np.exp(y) * dy.sum(axis=1, keepdims=True, dtype=np.float64).astype(dy.dtype)


@QUIET
def _times(x, factor):
    """x * factor, and 0 where the factor is 0, also for infinite x."""
    return np.where(factor == 0, 0, x * factor)


@QUIET
def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


@QUIET
def _cubic(x):
    return x * (GELU_TANH[0] + GELU_TANH[1] * x * x)


@QUIET
def _normal(x):
    """Phi(x) = erfc(-x / sqrt 2) / 2, whose argument is rounded: an error of d changes erfc(a) by -2 exp(-a^2) / sqrt(pi) d."""
    exact = x.astype(np.longdouble)
    a = -exact / np.sqrt(np.longdouble(2))
    near = a.astype(np.float64)
    correction = np.where(np.isfinite(a), (a - near) * np.exp(-near * near) / math.sqrt(math.pi), 0)
    return (_erfc(near) / 2 - correction).astype(x.dtype)


@QUIET
def _density(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
