"""Activations on CUDA: four elements per thread, made from the table; for softmax a group of neighbouring threads per row."""

import math

import numpy as np
from numba import cuda

from nbnet.kernels.activations import TABLE
from nbnet.kernels.gpu import activations, device
from nbnet.kernels.gpu.columns import PER_THREAD, RUN, columns, columns_of_sums, gather, merge_sums, write_sums
from nbnet.kernels.gpu.compile import formula, from_text, kernel
from nbnet.kernels.gpu.launch import add4, elementwise, load, multiply4, row_maximum, row_sum, rows, run, store, wide4
from nbnet.kernels.tables import made_from_table

# ------------------------------------------------------------------------------------------------ made from the table

FORWARD = """
@kernel
def _NAME_forward(x, OPTIONS, size, y):
    at = 4 * cuda.grid(1)
    v = load(x, at, size)
    store(y, at, size, (act(v[0], OPTIONS), act(v[1], OPTIONS), act(v[2], OPTIONS), act(v[3], OPTIONS)))


def NAME_forward(x, OPTIONS, y):
    T = x.dtype.type
    elementwise(_NAME_forward, x.size, x, TYPED, x.size, y)
"""

BACKWARD = """
@kernel
def _NAME_backward(dy, v, OPTIONS, size, dx):
    at = 4 * cuda.grid(1)
    g, v = load(dy, at, size), load(v, at, size)
    out = act(g[0], v[0], OPTIONS), act(g[1], v[1], OPTIONS), act(g[2], v[2], OPTIONS), act(g[3], v[3], OPTIONS)
    store(dx, at, size, out)


def NAME_backward(dy, SAVED, OPTIONS, dx):
    T = dy.dtype.type
    elementwise(_NAME_backward, dy.size, dy, SAVED, TYPED, dy.size, dx)
"""


def _make(name, text, row):
    act = getattr(activations, row.name if name.endswith("_forward") else f"{row.name}_through")
    return from_text(name, text, act, {"load": load, "store": store, "elementwise": elementwise, "act": act})


__getattr__, __dir__ = made_from_table(globals(), {"NAME_forward": FORWARD, "NAME_backward": BACKWARD}, _make, TABLE.values())

# ----------------------------------------------------------------------------------------------------- softmax


@kernel
def _softmax_forward(x, count, classes, y, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0  # all threads stay for the reductions
    largest = x[row * classes] if row < count else x.dtype.type(0)  # others may have been overwritten, if y is x
    for c in range(first, last, group):
        largest = max(largest, x[row * classes + c])
    largest, _ = row_maximum(largest, 0, group, x)
    total = x.dtype.type(0)
    for c in range(first, last, group):
        total += math.exp(x[row * classes + c] - largest)
    share = x.dtype.type(1) / row_sum(total, group, x)
    for c in range(first, last, group):
        y[row * classes + c] = math.exp(x[row * classes + c] - largest) * share


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


# ------------------------------------------------------------------------------------------------- log_softmax


@kernel
def _log_softmax_forward(x, count, classes, y, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0  # all threads stay for the reductions
    largest = x[row * classes] if row < count else x.dtype.type(0)  # others may have been overwritten, if y is x
    for c in range(first, last, group):
        largest = max(largest, x[row * classes + c])
    largest, _ = row_maximum(largest, 0, group, x)
    total = x.dtype.type(0)
    for c in range(first, last, group):
        total += math.exp(x[row * classes + c] - largest)
    total = row_sum(total, group, x)
    rest = math.log(total) if row < count else total
    for c in range(first, last, group):
        y[row * classes + c] = x[row * classes + c] - largest - rest


def log_softmax_forward(x, y):
    rows(_log_softmax_forward, x.shape[0], x.shape[1], x, x.shape[0], x.shape[1], y)


@kernel
def _log_softmax_backward(dy, y, count, classes, dx, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0
    total = y.dtype.type(0)
    for c in range(first, last, group):
        total += dy[row * classes + c]
    total = row_sum(total, group, y)
    for c in range(first, last, group):
        dx[row * classes + c] = dy[row * classes + c] - math.exp(y[row * classes + c]) * total


def log_softmax_backward(dy, y, dx):
    rows(_log_softmax_backward, y.shape[0], y.shape[1], dy, y, y.shape[0], y.shape[1], dx)


# ------------------------------------------------------------------------------------------------------- prelu


@formula
def _prelu4(sign, value, slope):
    return (
        value[0] if sign[0] > 0 else slope[0] * value[0],
        value[1] if sign[1] > 0 else slope[1] * value[1],
        value[2] if sign[2] > 0 else slope[2] * value[2],
        value[3] if sign[3] > 0 else slope[3] * value[3],
    )


@formula
def _below4(x, v, zero):
    return zero if x[0] > 0 else v[0], zero if x[1] > 0 else v[1], zero if x[2] > 0 else v[2], zero if x[3] > 0 else v[3]


@kernel
def _prelu_forward(x, weight, size, channels, period, rows, y):
    """rows: super-rows; the last may be partial."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    slope = gather(weight, 4 * column, channels)
    for row in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, rows, cuda.gridDim.x * cuda.blockDim.y):
        at = 4 * (row * period + column)
        v = load(x, at, size)
        store(y, at, size, _prelu4(v, v, slope))


def prelu_forward(x, weight, y):
    layout = columns(x.size, weight.size, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    run(_prelu_forward, layout.grid, layout.block, x, weight, x.size, weight.size, layout.period, rows, y)


@kernel
def _prelu_backward(dy, x, weight, size, channels, period, rows, partials, dx):
    """rows: super-rows; the last may be partial, and x is loaded as 0 beyond the array."""
    column, zero = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, x.dtype.type(0)
    zeros = zero, zero, zero, zero
    wide, row, step = wide4(zeros), cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    slope = gather(weight, 4 * column, channels)
    while row < rows:
        sums = zeros
        last = min(rows, row + RUN * step)
        while row < last:
            at = 4 * (row * period + column)
            g, v = load(dy, at, size), load(x, at, size)
            sums = add4(sums, _below4(v, multiply4(g, v), zero))
            store(dx, at, size, _prelu4(v, g, slope))
            row += step
        wide = add4(wide, wide4(sums))
    write_sums(wide, wide, period, partials)


def prelu_backward(dy, x, weight, partials, dx, dweight):
    layout = columns_of_sums(x.size, weight.size)
    blocks, period = layout.grid[0], layout.period
    rows = -(-x.size // (4 * period))
    partials, unused = device.pool().empty((blocks, 2, 4 * period), np.float64), device.pool().empty(weight.shape, weight.dtype)
    run(_prelu_backward, layout.grid, layout.block, dy, x, weight, x.size, weight.size, period, rows, partials, dx)
    merge_sums(partials, layout, weight.size, dweight, unused)
