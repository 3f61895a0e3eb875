"""Activations on the CPU: one loop over a chunk of elements, or of rows for softmax.

The chunk is sliced first, so that the loop runs from 0. If the start could be negative, Numba would have to handle indices from the
end, and LLVM would leave the loop scalar.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import exp_of_row, largest_of_row, scale_row
from nbnet.kernels.cpu.vecmath import EXP, sigmoid_of_run, tanh_of_run

# -------------------------------------------------------------------------------------------------------- relu


@body
def _relu_forward(part, parts, x, y):
    start, stop = chunks.bounds(part, parts, x.size)
    x, y = x[start:stop], y[start:stop]
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= 0 else x[i]  # NaN <= 0 is false: NaN passes


@serial
def relu_forward_serial(x, y):
    n = chunks.count(x.size, 1)
    for k in range(n):
        _relu_forward(k, n, x, y)


@parallel
def relu_forward_parallel(x, y):
    n = chunks.count(x.size, 1)
    parallel_for(n, _relu_forward, (n, x, y))


@body
def _relu_backward(part, parts, dy, y, dx):
    start, stop = chunks.bounds(part, parts, dy.size)
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    zero = y.dtype.type(0)
    for i in range(dy.size):
        dx[i] = zero if y[i] <= 0 else dy[i]


@serial
def relu_backward_serial(dy, y, dx):
    n = chunks.count(dy.size, 1)
    for k in range(n):
        _relu_backward(k, n, dy, y, dx)


@parallel
def relu_backward_parallel(dy, y, dx):
    n = chunks.count(dy.size, 1)
    parallel_for(n, _relu_backward, (n, dy, y, dx))


# -------------------------------------------------------------------------------------------------- leaky_relu


@body
def _leaky_relu_forward(part, parts, x, slope, y):
    start, stop = chunks.bounds(part, parts, x.size)
    x, y = x[start:stop], y[start:stop]
    slope = x.dtype.type(slope)
    for i in range(x.size):
        y[i] = x[i] if x[i] > 0 else slope * x[i]


@serial
def leaky_relu_forward_serial(x, slope, y):
    n = chunks.count(x.size, 1)
    for k in range(n):
        _leaky_relu_forward(k, n, x, slope, y)


@parallel
def leaky_relu_forward_parallel(x, slope, y):
    n = chunks.count(x.size, 1)
    parallel_for(n, _leaky_relu_forward, (n, x, slope, y))


@body
def _leaky_relu_backward(part, parts, dy, y, slope, dx):
    start, stop = chunks.bounds(part, parts, dy.size)
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    slope = y.dtype.type(slope)
    for i in range(dy.size):
        dx[i] = dy[i] if y[i] > 0 else slope * dy[i]


@serial
def leaky_relu_backward_serial(dy, y, slope, dx):
    n = chunks.count(dy.size, 1)
    for k in range(n):
        _leaky_relu_backward(k, n, dy, y, slope, dx)


@parallel
def leaky_relu_backward_parallel(dy, y, slope, dx):
    n = chunks.count(dy.size, 1)
    parallel_for(n, _leaky_relu_backward, (n, dy, y, slope, dx))


# -------------------------------------------------------------------------------------------------------- tanh


@body
def _tanh_forward(part, parts, x, y):
    start, stop = chunks.bounds(part, parts, x.size)
    tanh_of_run(x, start, stop, y)


@serial
def tanh_forward_serial(x, y):
    n = chunks.count(x.size, EXP)
    for k in range(n):
        _tanh_forward(k, n, x, y)


@parallel
def tanh_forward_parallel(x, y):
    n = chunks.count(x.size, EXP)
    parallel_for(n, _tanh_forward, (n, x, y))


@body
def _tanh_backward(part, parts, dy, y, dx):
    start, stop = chunks.bounds(part, parts, dy.size)
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    one = y.dtype.type(1)
    for i in range(dy.size):
        dx[i] = dy[i] * (one - y[i] * y[i])


@serial
def tanh_backward_serial(dy, y, dx):
    n = chunks.count(dy.size, 1)
    for k in range(n):
        _tanh_backward(k, n, dy, y, dx)


@parallel
def tanh_backward_parallel(dy, y, dx):
    n = chunks.count(dy.size, 1)
    parallel_for(n, _tanh_backward, (n, dy, y, dx))


# ----------------------------------------------------------------------------------------------------- sigmoid


@body
def _sigmoid_forward(part, parts, x, y):
    start, stop = chunks.bounds(part, parts, x.size)
    sigmoid_of_run(x, start, stop, y)


@serial
def sigmoid_forward_serial(x, y):
    n = chunks.count(x.size, EXP)
    for k in range(n):
        _sigmoid_forward(k, n, x, y)


@parallel
def sigmoid_forward_parallel(x, y):
    n = chunks.count(x.size, EXP)
    parallel_for(n, _sigmoid_forward, (n, x, y))


@body
def _sigmoid_backward(part, parts, dy, y, dx):
    start, stop = chunks.bounds(part, parts, dy.size)
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    one = y.dtype.type(1)
    for i in range(dy.size):
        dx[i] = dy[i] * (y[i] * (one - y[i]))


@serial
def sigmoid_backward_serial(dy, y, dx):
    n = chunks.count(dy.size, 1)
    for k in range(n):
        _sigmoid_backward(k, n, dy, y, dx)


@parallel
def sigmoid_backward_parallel(dy, y, dx):
    n = chunks.count(dy.size, 1)
    parallel_for(n, _sigmoid_backward, (n, dy, y, dx))


# ----------------------------------------------------------------------------------------------------- softmax


@body
def _softmax_forward(part, parts, x, y):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    size, source, target = x.shape[1], x.reshape(-1), y.reshape(-1)
    for m in range(start, stop):
        total = exp_of_row(source, m * size, size, largest_of_row(source, m * size, size), target)
        scale_row(target, m * size, size, x.dtype.type(1.0 / total))


@serial
def softmax_forward_serial(x, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    for k in range(n):
        _softmax_forward(k, n, x, y)


@parallel
def softmax_forward_parallel(x, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    parallel_for(n, _softmax_forward, (n, x, y))


@body
def _softmax_backward(part, parts, dy, y, dx):
    start, stop = chunks.bounds(part, parts, y.shape[0])
    for m in range(start, stop):
        total = 0.0
        for c in range(y.shape[1]):
            total += np.float64(dy[m, c]) * np.float64(y[m, c])
        dot = y.dtype.type(total)
        for c in range(y.shape[1]):
            dx[m, c] = y[m, c] * (dy[m, c] - dot)


@serial
def softmax_backward_serial(dy, y, dx):
    n = chunks.count(y.shape[0], 2 * y.shape[1])
    for k in range(n):
        _softmax_backward(k, n, dy, y, dx)


@parallel
def softmax_backward_parallel(dy, y, dx):
    n = chunks.count(y.shape[0], 2 * y.shape[1])
    parallel_for(n, _softmax_backward, (n, dy, y, dx))
