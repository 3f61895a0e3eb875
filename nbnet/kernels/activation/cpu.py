"""Activations on the CPU: element-wise ones are made from the table; those of rows are written out."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.activations import TABLE
from nbnet.kernels.cpu.activation_runs import backward_of_run, cost, forward_of_run
from nbnet.kernels.cpu.activations import VECTORS
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.drivers import drivers
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import exp_of_row, largest_of_row, merge_sums, scale_row
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import EXP, exp
from nbnet.kernels.cpu.vector import load, load_as, splat, splat_as, store, where, widen, zero
from nbnet.kernels.tables import made_from_table

ROWS = 16  # summed in registers before the sums go back to memory

# ------------------------------------------------------------------------------------------------ made from the table


def _forward(name):
    run_forward = forward_of_run(name)

    @body
    def run(part, parts, options, x, y):
        start, stop = chunks.bounds(part, parts, x.size)
        run_forward(options, x, start, y, start, stop - start)

    return run


FORWARD = """
@serial
def NAME_forward_serial(x, OPTIONS, y):
    n = chunks.count(x.size, work)
    for k in range(n):
        run(k, n, TUPLE, x, y)


@parallel
def NAME_forward_parallel(x, OPTIONS, y):
    n = chunks.count(x.size, work)
    parallel_for(n, run, (n, TUPLE, x, y))
"""


def _backward(name):
    run_backward = backward_of_run(name)

    @body
    def run(part, parts, options, dy, v, dx):
        start, stop = chunks.bounds(part, parts, dy.size)
        run_backward(options, dy, v, start, stop, dx)

    return run


BACKWARD = """
@serial
def NAME_backward_serial(dy, SAVED, OPTIONS, dx):
    n = chunks.count(dy.size, work)
    for k in range(n):
        run(k, n, TUPLE, dy, SAVED, dx)


@parallel
def NAME_backward_parallel(dy, SAVED, OPTIONS, dx):
    n = chunks.count(dy.size, work)
    parallel_for(n, run, (n, TUPLE, dy, SAVED, dx))
"""


def _make(name, text, row):
    form = VECTORS[row.name]
    if name.endswith("_forward"):
        return drivers(name, text, form.forward.py_func, run=_forward(row.name), work=cost(form.first))
    return drivers(name, text, form.through.py_func, run=_backward(row.name), work=cost(form.through_first))


TEMPLATES = {"NAME_forward": FORWARD, "NAME_backward": BACKWARD}
__getattr__, __dir__ = made_from_table(globals(), TEMPLATES, _make, TABLE.values(), ("_serial", "_parallel"))

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


# ------------------------------------------------------------------------------------------------- log_softmax


@body
def _log_softmax_forward(part, parts, x, y):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    size, source, target = x.shape[1], x.reshape(-1), y.reshape(-1)
    for m in range(start, stop):
        largest = largest_of_row(source, m * size, size)
        rest = x.dtype.type(np.log(exp_of_row(source, m * size, size, largest, target)))
        for c in range(0, size, lanes(x)):
            v = load(source, m * size + c, size - c)
            store(target, m * size + c, size - c, v - splat_as(largest, v) - splat_as(rest, v))


@serial
def log_softmax_forward_serial(x, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    for k in range(n):
        _log_softmax_forward(k, n, x, y)


@parallel
def log_softmax_forward_parallel(x, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    parallel_for(n, _log_softmax_forward, (n, x, y))


@body
def _log_softmax_backward(part, parts, dy, y, dx):
    start, stop = chunks.bounds(part, parts, y.shape[0])
    size, gradient, source, target = y.shape[1], dy.reshape(-1), y.reshape(-1), dx.reshape(-1)
    for m in range(start, stop):
        total = 0.0
        for c in range(size):
            total += np.float64(dy[m, c])
        for c in range(0, size, lanes(y)):
            n, at = size - c, m * size + c
            g = load(gradient, at, n)
            store(target, at, n, g - exp(load(source, at, n)) * splat_as(total, g))


@serial
def log_softmax_backward_serial(dy, y, dx):
    n = chunks.count(y.shape[0], EXP * y.shape[1])
    for k in range(n):
        _log_softmax_backward(k, n, dy, y, dx)


@parallel
def log_softmax_backward_parallel(dy, y, dx):
    n = chunks.count(y.shape[0], EXP * y.shape[1])
    parallel_for(n, _log_softmax_backward, (n, dy, y, dx))


# ------------------------------------------------------------------------------------------------------- prelu


@body
def _slopes(weight, c, n):
    """The slopes of n channels from c: weight has one number, or one for each channel."""
    return splat(weight[0]) if weight.size == 1 else load(weight, c, n)


@body
def _prelu_forward(part, parts, x, weight, y):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    channels, source, target = x.shape[1], x.reshape(-1), y.reshape(-1)
    for m in range(start, stop):
        for c in range(0, channels, lanes(x)):
            n, at = channels - c, m * channels + c
            v = load(source, at, n)
            store(target, at, n, where(v > zero(v), v, _slopes(weight, c, n) * v))


@serial
def prelu_forward_serial(x, weight, y):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        _prelu_forward(k, n, x, weight, y)


@parallel
def prelu_forward_parallel(x, weight, y):
    n = chunks.count(x.shape[0], x.shape[1])
    parallel_for(n, _prelu_forward, (n, x, weight, y))


@body
def _prelu_backward(part, dy, x, weight, partials, dx):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    sums, channels = partials[part, 0], x.shape[1]
    gradient, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for c in range(channels):
        sums[c] = 0.0
        partials[part, 1, c] = 0.0
    for block in range(start, stop, ROWS):
        for c in range(0, channels, lanes(x)):
            n = channels - c
            slope = _slopes(weight, c, n)
            total = load_as(sums, c, n, slope)
            for m in range(block, min(block + ROWS, stop)):
                g, v = load(gradient, m * channels + c, n), load(source, m * channels + c, n)
                positive = v > zero(v)
                total = total + widen(where(positive, zero(v), g)) * widen(where(positive, zero(v), v))  # 0 times infinity is NaN
                store(target, m * channels + c, n, where(positive, g, slope * g))
            store(sums, c, n, total)


@serial
def prelu_backward_serial(dy, x, weight, partials, dx, dweight):
    for k in range(partials.shape[0]):
        _prelu_backward(k, dy, x, weight, partials, dx)
    _merge_weight(partials, dweight)


@parallel
def prelu_backward_parallel(dy, x, weight, partials, dx, dweight):
    parallel_for(partials.shape[0], _prelu_backward, (dy, x, weight, partials, dx))
    _merge_weight(partials, dweight)


@precise
def _merge_weight(partials, dweight):
    """dweight from the sums of each chunk; one number is the sum over the channels too."""
    sums, unused = partials[0, 0], partials[0, 1]
    merge_sums(partials, sums, unused)
    if dweight.size == sums.size:
        for c in range(sums.size):
            dweight[c] = sums[c]
    else:
        total = 0.0
        for c in range(sums.size):
            total += sums[c]
        dweight[0] = total
