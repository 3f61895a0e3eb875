"""The dense layer on the CPU: tiles of rows through the small matrix products of `matmul`."""

from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.matmul import add_matmul, add_matmul_at, merge_partials

TILE = 16  # rows that share one pass over the weights

# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(x, weight, bias, start, stop, y):
    for m in range(start, stop, TILE):
        end = min(m + TILE, stop)
        for p in range(m, end):
            for o in range(y.shape[1]):
                y[p, o] = bias[o]
        add_matmul(x[m:end], weight, y[m:end])


@serial
def forward_serial(x, weight, bias, y):
    n = chunks.count(x.shape[0], weight.size)
    for k in range(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _forward(x, weight, bias, start, stop, y)


@parallel
def forward_parallel(x, weight, bias, y):
    n = chunks.count(x.shape[0], weight.size)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _forward(x, weight, bias, start, stop, y)


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _backward_data(dy, weight_t, start, stop, dx):
    for m in range(start, stop, TILE):
        end = min(m + TILE, stop)
        dx[m:end] = 0
        add_matmul(dy[m:end], weight_t, dx[m:end])


@serial
def backward_data_serial(dy, weight_t, dx):
    n = chunks.count(dy.shape[0], weight_t.size)
    for k in range(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _backward_data(dy, weight_t, start, stop, dx)


@parallel
def backward_data_parallel(dy, weight_t, dx):
    n = chunks.count(dy.shape[0], weight_t.size)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _backward_data(dy, weight_t, start, stop, dx)


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _backward_weights(x, dy, start, stop, partial):
    partial[:] = 0
    inputs = x.shape[1]
    add_matmul_at(x[start:stop], dy[start:stop], partial[:inputs])
    for m in range(start, stop):
        for o in range(dy.shape[1]):
            partial[inputs, o] += dy[m, o]


@body
def _merge(partials, dweight, dbias):
    inputs = dweight.shape[0]
    merge_partials(partials[:, :inputs], dweight)
    merge_partials(partials[:, inputs:], dbias.reshape(1, -1))


@serial
def backward_weights_serial(x, dy, partials, dweight, dbias):
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_weights(x, dy, start, stop, partials[k])
    _merge(partials, dweight, dbias)


@parallel
def backward_weights_parallel(x, dy, partials, dweight, dbias):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_weights(x, dy, start, stop, partials[k])
    _merge(partials, dweight, dbias)


# -------------------------------------------------------------------------------------------------- transpose


@body
def _transpose(weight, start, stop, weight_t):
    for o in range(start, stop):
        for i in range(weight.shape[0]):
            weight_t[o, i] = weight[i, o]


@serial
def transpose_serial(weight, weight_t):
    _transpose(weight, 0, weight_t.shape[0], weight_t)


@parallel
def transpose_parallel(weight, weight_t):
    n = chunks.count(weight_t.shape[0], weight.shape[0])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, weight_t.shape[0])
        _transpose(weight, start, stop, weight_t)
