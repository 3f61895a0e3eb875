"""The dense layer on the CPU: vector register tiles over rows and columns."""

from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.dense import MACS
from nbnet.kernels.simd import multiply

# ---------------------------------------------------------------------------------------------------- forward


@body
def _rows(x, weight, init, start, stop, y):
    """Rows start to stop of y = init + x @ weight, with init the same for every row. All flat but weight (I, O)."""
    inputs, outputs = weight.shape
    flat = weight.reshape(-1)
    rows = stop - start
    multiply(rows, x, start * inputs, 0, inputs, 1, flat, 0, 0, outputs, 1, inputs, init, 0, 0, y, start * outputs, outputs, outputs)


@serial
def forward_serial(x, weight, bias, y):
    n = chunks.count(x.shape[0], weight.size // MACS)
    for k in range(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _rows(x.reshape(-1), weight, bias, start, stop, y.reshape(-1))


@parallel
def forward_parallel(x, weight, bias, y):
    n = chunks.count(x.shape[0], weight.size // MACS)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _rows(x.reshape(-1), weight, bias, start, stop, y.reshape(-1))


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _turn(weight, turned):
    """The transposed weights in the first rows of turned (O + 1, I), zeros in the last."""
    inputs, outputs = weight.shape
    for o in range(outputs):
        for i in range(inputs):
            turned[o, i] = weight[i, o]
    for i in range(inputs):
        turned[outputs, i] = 0


@serial
def backward_data_serial(dy, weight, turned, dx):
    _turn(weight, turned)
    outputs = weight.shape[1]
    n = chunks.count(dy.shape[0], weight.size // MACS)
    for k in range(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _rows(dy.reshape(-1), turned[:outputs], turned[outputs], start, stop, dx.reshape(-1))


@parallel
def backward_data_parallel(dy, weight, turned, dx):
    _turn(weight, turned)
    outputs = weight.shape[1]
    n = chunks.count(dy.shape[0], weight.size // MACS)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _rows(dy.reshape(-1), turned[:outputs], turned[outputs], start, stop, dx.reshape(-1))


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _backward_weights(x, dy, start, stop, partial):
    inputs, outputs = x.shape[1], dy.shape[1]
    partial[:] = 0
    flat = partial.reshape(-1)
    a, b = x.reshape(-1), dy.reshape(-1)
    rows = stop - start
    multiply(inputs, a, start * inputs, 0, 1, inputs, b, start * outputs, 0, outputs, 1, rows, flat, 0, outputs, flat, 0, outputs, outputs)
    for m in range(start, stop):
        for o in range(outputs):
            partial[inputs, o] += dy[m, o]


@body
def merge(partials, dweight, dbias):
    """Add up partials (K, D + 1, O) in order: the weights' gradient (D, O) and, from the last rows, the bias's (O,)."""
    depth, outputs = dweight.shape
    for d in range(depth):
        for o in range(outputs):
            dweight[d, o] = partials[0, d, o]
        for k in range(1, partials.shape[0]):
            for o in range(outputs):
                dweight[d, o] += partials[k, d, o]
    for o in range(outputs):
        dbias[o] = partials[0, depth, o]
        for k in range(1, partials.shape[0]):
            dbias[o] += partials[k, depth, o]


@serial
def backward_weights_serial(x, dy, partials, dweight, dbias):
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_weights(x, dy, start, stop, partials[k])
    merge(partials, dweight, dbias)


@parallel
def backward_weights_parallel(x, dy, partials, dweight, dbias):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_weights(x, dy, start, stop, partials[k])
    merge(partials, dweight, dbias)
