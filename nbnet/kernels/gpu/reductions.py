"""Moments on CUDA: a thread sums a few rows in T, about its own first row, then continues in float64.

So float32 is precise without float64 arithmetic per element. Means are stored as deviations from the first row of the array, or from the
first numbers whose weight is above 0. Blocks write partial results, and a small kernel merges them in order.
"""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.columns import MERGERS, MERGING, RUN, columns_of_sums, gather, gather_weights
from nbnet.kernels.gpu.compile import formula, function, kernel, kernel_of
from nbnet.kernels.gpu.launch import (
    THREADS,
    add4,
    load,
    load4,
    multiply4,
    multiply_add4,
    row_maximum,
    rows,
    run,
    store,
    subtract4,
    where4,
    wide4,
)


@formula
def _merge(n, mean, m2, other_n, other_mean, other_m2):
    """Merge count, mean and sum of squares of two parts, in float64 (Chan's formula)."""
    if other_n <= 0.0:
        return n, mean, m2
    total = n + other_n
    delta = other_mean - mean
    share = other_n / total
    return total, mean + delta * share, m2 + other_m2 + delta * delta * n * share


@formula
def _merge4(n, mean, m2, other_n, other_mean, other_m2):
    a = _merge(n[0], mean[0], m2[0], other_n[0], other_mean[0], other_m2[0])
    b = _merge(n[1], mean[1], m2[1], other_n[1], other_mean[1], other_m2[1])
    c = _merge(n[2], mean[2], m2[2], other_n[2], other_mean[2], other_m2[2])
    d = _merge(n[3], mean[3], m2[3], other_n[3], other_mean[3], other_m2[3])
    return (a[0], b[0], c[0], d[0]), (a[1], b[1], c[1], d[1]), (a[2], b[2], c[2], d[2])


@formula
def shifted(n, total, squares, origin):
    """Count, mean and sum of squares of x - base, from the sums of x - base - origin and of its square."""
    if n <= 0.0:
        return n, 0.0, 0.0
    d = total / n
    return n, origin + d, max(squares - total * d, 0.0) if squares == squares else squares


@formula
def _shifted4(n, total, squares, origin, base):
    n, total, squares, origin = wide4(n), wide4(total), wide4(squares), subtract4(wide4(origin), base)
    a = shifted(n[0], total[0], squares[0], origin[0])
    b = shifted(n[1], total[1], squares[1], origin[1])
    c = shifted(n[2], total[2], squares[2], origin[2])
    d = shifted(n[3], total[3], squares[3], origin[3])
    return (a[0], b[0], c[0], d[0]), (a[1], b[1], c[1], d[1]), (a[2], b[2], c[2], d[2])


@function
def _write_moments(n, mean, m2, period, partials):
    """Merge the moments of a block's rows; write them to its place in partials (K, 3, 4 * period)."""
    shared = cuda.shared.array((12, THREADS), np.float64)
    me = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    height = cuda.blockDim.y
    while height > 1:
        for i in range(4):
            shared[i, me] = n[i]
            shared[4 + i, me] = mean[i]
            shared[8 + i, me] = m2[i]
        cuda.syncthreads()
        half = (height + 1) // 2
        if cuda.threadIdx.y + half < height:
            o = me + half * cuda.blockDim.x
            other_n = shared[0, o], shared[1, o], shared[2, o], shared[3, o]
            other_mean = shared[4, o], shared[5, o], shared[6, o], shared[7, o]
            other_m2 = shared[8, o], shared[9, o], shared[10, o], shared[11, o]
            n, mean, m2 = _merge4(n, mean, m2, other_n, other_mean, other_m2)
        cuda.syncthreads()
        height = half
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if cuda.threadIdx.y == 0 and column < period:
        at = 3 * cuda.blockIdx.x * period + column
        store(partials, 4 * at, partials.size, n)
        store(partials, 4 * (at + period), partials.size, mean)
        store(partials, 4 * (at + 2 * period), partials.size, m2)


@kernel
def _moments(x, size, channels, period, rows, partials):
    """rows: whole super-rows; the first block adds the rest of the array."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    T = x.dtype.type
    none, zeros = (0.0, 0.0, 0.0, 0.0), (T(0), T(0), T(0), T(0))
    n, mean, m2 = none, none, none
    base = wide4(gather(x, 4 * column, channels))
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    while row < rows:
        origin = load4(x, 4 * (row * period + column))
        total, squares, first = zeros, zeros, row
        last = min(rows, row + RUN * step)
        while row + 3 * step < last:
            d0 = load4(x, 4 * (row * period + column))
            d1 = load4(x, 4 * ((row + step) * period + column))
            d2 = load4(x, 4 * ((row + 2 * step) * period + column))
            d3 = load4(x, 4 * ((row + 3 * step) * period + column))
            d0, d1, d2, d3 = subtract4(d0, origin), subtract4(d1, origin), subtract4(d2, origin), subtract4(d3, origin)
            total = add4(total, add4(add4(d0, d1), add4(d2, d3)))
            squares = multiply_add4(d0, d0, multiply_add4(d1, d1, multiply_add4(d2, d2, multiply_add4(d3, d3, squares))))
            row += 4 * step
        while row < last:
            d = subtract4(load4(x, 4 * (row * period + column)), origin)
            total = add4(total, d)
            squares = multiply_add4(d, d, squares)
            row += step
        count = np.float64((row - first) // step)
        n, mean, m2 = _merge4(n, mean, m2, *_shifted4((count, count, count, count), total, squares, origin, base))
    left = size - 4 * (rows * period + column)
    if left > 0 and column < period and cuda.blockIdx.x == 0 and cuda.threadIdx.y == 0:
        counts = 1.0, 1.0 if left > 1 else 0.0, 1.0 if left > 2 else 0.0, 1.0 if left > 3 else 0.0
        n, mean, m2 = _merge4(n, mean, m2, counts, subtract4(wide4(load(x, size - left, size)), base), none)
    _write_moments(n, mean, m2, period, partials)


@kernel
def _first_of_each(x, weights, per_element, count, channels, base, group):
    """base (C,) = the first number of each channel whose weight is above 0. A group of threads searches the `count` rows."""
    channel, row = cuda.grid(1) // group, cuda.grid(1) % group
    first, last = row, count if channel < channels else 0  # all threads stay for the reduction
    channel = min(channel, channels - 1)
    while row < last and not weights[row * channels + channel if per_element else row] > 0:
        row += group
    _, found = row_maximum(x.dtype.type(1 if row < last else 0), row, group, x)
    if first == 0 and last > 0:
        base[channel] = x[min(found, count - 1) * channels + channel]


@kernel
def _weighted_moments(x, weights, per_element, base, size, channels, period, rows, partials):
    """rows: super-rows; the last may be partial. A thread sums about the first number of each lane whose weight is above 0."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    T = x.dtype.type
    none, zeros = (0.0, 0.0, 0.0, 0.0), (T(0), T(0), T(0), T(0))
    n, mean, m2 = none, none, none
    base = wide4(gather(base, 4 * column, channels))
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    while row < rows:
        origin, count, total, squares = zeros, zeros, zeros, zeros
        last = min(rows, row + RUN * step)
        while row < last:
            w = gather_weights(weights, 4 * (row * period + column), channels, per_element, size)
            d = load(x, 4 * (row * period + column), size)
            origin = where4(count, origin, d)
            d = where4(w, subtract4(d, origin), zeros)
            count = add4(count, w)
            w = multiply4(w, d)
            total = add4(total, w)
            squares = multiply_add4(w, d, squares)
            row += step
        n, mean, m2 = _merge4(n, mean, m2, *_shifted4(count, total, squares, origin, base))
    _write_moments(n, mean, m2, period, partials)


@kernel_of(MERGING, 1)
def _merge_moments(partials, base, parts, width, channels, mean, squares):
    """A block has MERGERS[0] channels (x). Each of MERGERS[1] threads (y) merges a strided share of the partial results, then those are
    merged, in order."""
    shared = cuda.shared.array((3, MERGING), np.float64)
    channel = cuda.blockIdx.x * MERGERS[0] + cuda.threadIdx.x
    me = cuda.threadIdx.y * MERGERS[0] + cuda.threadIdx.x
    n, mu, m2 = 0.0, 0.0, 0.0
    if channel < channels:
        for k in range(cuda.threadIdx.y, parts, MERGERS[1]):
            for lane in range(channel, width, channels):
                at = 3 * k * width + lane
                n, mu, m2 = _merge(n, mu, m2, partials[at], partials[at + width], partials[at + 2 * width])
    height = MERGERS[1]
    while height > 1:
        shared[0, me], shared[1, me], shared[2, me] = n, mu, m2
        cuda.syncthreads()
        height //= 2
        if cuda.threadIdx.y < height:
            other = me + height * MERGERS[0]
            n, mu, m2 = _merge(n, mu, m2, shared[0, other], shared[1, other], shared[2, other])
        cuda.syncthreads()
    if cuda.threadIdx.y == 0 and channel < channels:
        mean[channel] = np.float64(base[channel]) + mu
        squares[channel] = m2


def merge_moments(partials, base, mean, m2):
    """Launch the kernel that merges counts, means minus base, and sums of squares (K, 3, width); index i of width is channel i % C."""
    parts, _, width = partials.shape
    channels = mean.size
    run(_merge_moments, -(-channels // MERGERS[0]), MERGERS, partials, base, parts, width, channels, mean, m2)


def moments(x, weights, partials, mean, m2):
    channels = x.shape[1]
    layout = columns_of_sums(x.size, channels)
    blocks, period = layout.grid[0], layout.period
    partials = device.pool().empty((blocks, 3, 4 * period), np.float64)
    base = x if weights is None else device.pool().empty((channels,), x.dtype)
    if weights is None:
        run(_moments, layout.grid, layout.block, x, x.size, channels, period, layout.rows, partials)
    else:
        per_element = weights.size == x.size
        rows(_first_of_each, channels, x.shape[0], x, weights, per_element, x.shape[0], channels, base)
        super_rows = -(-x.size // (4 * period))
        args = (x, weights, per_element, base, x.size, channels, period, super_rows, partials)
        run(_weighted_moments, layout.grid, layout.block, *args)
    merge_moments(partials, base, mean, m2)
