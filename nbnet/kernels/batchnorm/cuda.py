"""Batch normalisation on CUDA: threads walk down columns of channels, four at a time.

A thread sums a few rows in T, from its own first row as origin, and goes on in float64: float32 stays precise without float64
arithmetic on every element. Means are kept as deviations from the first row of all. Blocks write partial results, and one more
small kernel merges them in order. The kernels that follow a reduction start at the end of the array, which is still in the
level-2 cache.
"""

import numpy as np
from numba import cuda

from nbnet.kernels import device
from nbnet.kernels.columns import BLOCKS_OF_SUMS, MERGERS, MERGING, columns, gather, merge_sums, write_sums
from nbnet.kernels.launch import (
    THREADS,
    add4,
    formula,
    function,
    kernel,
    kernel_of,
    load,
    load4,
    multiply4,
    multiply_add4,
    run,
    store,
    subtract4,
    wide4,
)
from nbnet.kernels.pool import cuda as pool

RUN = 64  # rows summed in T: an origin of their own bounds the cancellation by a factor of RUN
PER_THREAD = 8
POOL = (2, 2, 2, 2, 0, 0)  # windows of 2 x 2 pixels, stride 2, no padding

# ---------------------------------------------------------------------------------------------------- moments


@formula
def _merge(n, mean, m2, other_n, other_mean, other_m2):
    """Count, mean and sum of squares of two parts together, in float64 (Chan's formula)."""
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
def _shifted(n, total, squares, origin):
    """Count, mean and sum of squares of x - base, from the sums of x - base - origin and of its square."""
    if n <= 0.0:
        return n, 0.0, 0.0
    d = total / n
    return n, origin + d, max(squares - total * d, 0.0) if squares == squares else squares


@formula
def _shifted4(n, total, squares, origin, base):
    n, total, squares, origin = wide4(n), wide4(total), wide4(squares), subtract4(wide4(origin), base)
    a = _shifted(n[0], total[0], squares[0], origin[0])
    b = _shifted(n[1], total[1], squares[1], origin[1])
    c = _shifted(n[2], total[2], squares[2], origin[2])
    d = _shifted(n[3], total[3], squares[3], origin[3])
    return (a[0], b[0], c[0], d[0]), (a[1], b[1], c[1], d[1]), (a[2], b[2], c[2], d[2])


@function
def _write_moments(n, mean, m2, period, partials):
    """Merge the moments of a block's rows, and write them to its place in partials (K, 3, 4 * period)."""
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
    """rows: whole super-rows; the rest of the array belongs to the first block."""
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


@formula
def _weights(weights, index, channels, per_element, size):
    """The weights of elements index to index + 3; 0 beyond the array."""
    if per_element:
        return load(weights, index, size)
    zero = weights.dtype.type(0)
    return (
        weights[index // channels] if index < size else zero,
        weights[(index + 1) // channels] if index + 1 < size else zero,
        weights[(index + 2) // channels] if index + 2 < size else zero,
        weights[(index + 3) // channels] if index + 3 < size else zero,
    )


@kernel
def _weighted_moments(x, weights, per_element, size, channels, period, rows, partials):
    """rows: super-rows, the last of which may be a part."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    T = x.dtype.type
    none, zeros = (0.0, 0.0, 0.0, 0.0), (T(0), T(0), T(0), T(0))
    n, mean, m2 = none, none, none
    base = wide4(gather(x, 4 * column, channels))
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    while row < rows:
        origin = load(x, 4 * (row * period + column), size)
        count, total, squares = zeros, zeros, zeros
        last = min(rows, row + RUN * step)
        while row < last:
            w = _weights(weights, 4 * (row * period + column), channels, per_element, size)
            d = subtract4(load(x, 4 * (row * period + column), size), origin)
            count = add4(count, w)
            w = multiply4(w, d)
            total = add4(total, w)
            squares = multiply_add4(w, d, squares)
            row += step
        n, mean, m2 = _merge4(n, mean, m2, *_shifted4(count, total, squares, origin, base))
    _write_moments(n, mean, m2, period, partials)


@kernel_of(MERGING, 1)
def _merge_moments(partials, x, blocks, period, channels, mean, var):
    """A block has some channels (x) and merges every so many-th partial result (y), then those, in order."""
    shared = cuda.shared.array((3, MERGING), np.float64)
    channel = cuda.blockIdx.x * MERGERS[0] + cuda.threadIdx.x
    me = cuda.threadIdx.y * MERGERS[0] + cuda.threadIdx.x
    n, mu, m2 = 0.0, 0.0, 0.0
    if channel < channels:
        for k in range(cuda.threadIdx.y, blocks, MERGERS[1]):
            for lane in range(channel, 4 * period, channels):
                at = 12 * k * period + lane
                n, mu, m2 = _merge(n, mu, m2, partials[at], partials[at + 4 * period], partials[at + 8 * period])
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
        mean[channel] = np.float64(x[channel]) + mu
        var[channel] = m2 / n


def moments(x, weights, partials, mean, var):
    channels = x.shape[1]
    layout = columns(x.size, channels, RUN, BLOCKS_OF_SUMS)
    blocks, period = layout.grid[0], layout.period
    partials = device.pool().empty((blocks, 3, 4 * period), np.float64)
    if weights is None:
        run(_moments, layout.grid, layout.block, x, x.size, channels, period, layout.rows, partials)
    else:
        rows = -(-x.size // (4 * period))
        per_element = weights.size == x.size
        run(_weighted_moments, layout.grid, layout.block, x, weights, per_element, x.size, channels, period, rows, partials)
    run(_merge_moments, -(-channels // MERGERS[0]), MERGERS, partials, x, blocks, period, channels, mean, var)


# ------------------------------------------------------------------------------------------------------ apply


@formula
def _act4(z, slope):
    return (
        z[0] if z[0] > 0 else slope * z[0],
        z[1] if z[1] > 0 else slope * z[1],
        z[2] if z[2] > 0 else slope * z[2],
        z[3] if z[3] > 0 else slope * z[3],
    )


@formula
def _through4(dy, z, slope):
    """dy times the slope of the activation at z."""
    return (
        dy[0] if z[0] > 0 else slope * dy[0],
        dy[1] if z[1] > 0 else slope * dy[1],
        dy[2] if z[2] > 0 else slope * dy[2],
        dy[3] if z[3] > 0 else slope * dy[3],
    )


@kernel
def _apply(x, center, scale, shift, slope, size, channels, period, rows, y):
    """rows: super-rows, the last of which may be a part."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    row, step = rows - 1 - (cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y), cuda.gridDim.x * cuda.blockDim.y
    while row - step >= 0:
        at, next_at = 4 * (row * period + column), 4 * ((row - step) * period + column)
        a, b = load(x, at, size), load(x, next_at, size)
        store(y, at, size, _act4(multiply_add4(subtract4(a, center), scale, shift), slope))
        store(y, next_at, size, _act4(multiply_add4(subtract4(b, center), scale, shift), slope))
        row -= 2 * step
    if row >= 0:
        at = 4 * (row * period + column)
        store(y, at, size, _act4(multiply_add4(subtract4(load(x, at, size), center), scale, shift), slope))


def apply(x, center, scale, shift, slope, y):
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    run(_apply, layout.grid, layout.block, x, center, scale, shift, x.dtype.type(slope), x.size, channels, layout.period, rows, y)


# -------------------------------------------------------------------------------------------- backward_reduce


@kernel
def _backward_reduce(dy, x, center, scale, shift, slope, size, channels, period, rows, partials):
    """rows: super-rows, the last of which may be a part: what is loaded beyond the array is dy = 0."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    zero = x.dtype.type(0)
    zeros = zero, zero, zero, zero
    wide_g, wide_gx = wide4(zeros), wide4(zeros)
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    while row < rows:
        sum_g, sum_gx = zeros, zeros
        last = min(rows, row + RUN * step)
        while row + step < last:
            at, next_at = 4 * (row * period + column), 4 * ((row + step) * period + column)
            d0, d1 = subtract4(load(x, at, size), center), subtract4(load(x, next_at, size), center)
            g0, g1 = load(dy, at, size), load(dy, next_at, size)
            g0 = _through4(g0, multiply_add4(d0, scale, shift), slope)
            g1 = _through4(g1, multiply_add4(d1, scale, shift), slope)
            sum_g = add4(sum_g, add4(g0, g1))
            sum_gx = multiply_add4(g0, d0, multiply_add4(g1, d1, sum_gx))
            row += 2 * step
        if row < last:
            at = 4 * (row * period + column)
            d = subtract4(load(x, at, size), center)
            g = _through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
            sum_g = add4(sum_g, g)
            sum_gx = multiply_add4(g, d, sum_gx)
            row += step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


def backward_reduce(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    channels, slope = x.shape[1], x.dtype.type(slope)
    layout = columns(x.size, channels, RUN, BLOCKS_OF_SUMS)
    blocks, period = layout.grid[0], layout.period
    rows = -(-x.size // (4 * period))
    partials = device.pool().empty((blocks, 2, 4 * period), np.float64)
    run(_backward_reduce, layout.grid, layout.block, dy, x, center, scale, shift, slope, x.size, channels, period, rows, partials)
    merge_sums(partials, layout, channels, sum_g, sum_gx)


# --------------------------------------------------------------------------------------------- backward_apply


@kernel
def _backward_apply(dy, x, center, scale, shift, slope, a, b, c, size, channels, period, rows, dx):
    """rows: super-rows, the last of which may be a part."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    a, b, c = gather(a, 4 * column, channels), gather(b, 4 * column, channels), gather(c, 4 * column, channels)
    row, step = rows - 1 - (cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y), cuda.gridDim.x * cuda.blockDim.y
    while row - step >= 0:
        at, next_at = 4 * (row * period + column), 4 * ((row - step) * period + column)
        d0, d1 = load(x, at, size), load(x, next_at, size)
        g0, g1 = load(dy, at, size), load(dy, next_at, size)
        d0, d1 = subtract4(d0, center), subtract4(d1, center)
        g0 = _through4(g0, multiply_add4(d0, scale, shift), slope)
        g1 = _through4(g1, multiply_add4(d1, scale, shift), slope)
        store(dx, at, size, multiply_add4(a, g0, multiply_add4(c, d0, b)))
        store(dx, next_at, size, multiply_add4(a, g1, multiply_add4(c, d1, b)))
        row -= 2 * step
    if row >= 0:
        at = 4 * (row * period + column)
        d = subtract4(load(x, at, size), center)
        g = _through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
        store(dx, at, size, multiply_add4(a, g, multiply_add4(c, d, b)))


@kernel
def _weighted_backward_apply(dy, x, weights, per_element, center, scale, shift, slope, a, b, c, size, channels, period, rows, dx):
    """As _backward_apply, with weights."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    a, b, c = gather(a, 4 * column, channels), gather(b, 4 * column, channels), gather(c, 4 * column, channels)
    for row in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, rows, cuda.gridDim.x * cuda.blockDim.y):
        at = 4 * (row * period + column)
        d = subtract4(load(x, at, size), center)
        g = _through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
        w = _weights(weights, at, channels, per_element, size)
        store(dx, at, size, multiply_add4(a, g, multiply4(w, multiply_add4(c, d, b))))


def backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    rest = (center, scale, shift, x.dtype.type(slope), a, b, c, x.size, channels, layout.period, rows, dx)
    if weights is None:
        run(_backward_apply, layout.grid, layout.block, dy, x, *rest)
    else:
        run(_weighted_backward_apply, layout.grid, layout.block, dy, x, weights, weights.size == x.size, *rest)


# ------------------------------------------------------------------------------------------- with a max-pool behind


def apply_max_pool(x, center, scale, shift, slope, y):
    pool.max_forward(_applied(x, center, scale, shift, slope), *POOL, y)


def backward_reduce_max_pool(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    g = _at_winners(dy, x, center, scale, shift, slope)
    backward_reduce(_rows(g), _rows(x), center, scale, shift, slope, partials, sum_g, sum_gx)


def backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, dx):
    g = _at_winners(dy, x, center, scale, shift, slope)
    backward_apply(_rows(g), _rows(x), None, center, scale, shift, slope, a, b, c, _rows(dx))


def _rows(x):
    return x.reshape(-1, x.shape[3])


def _applied(x, center, scale, shift, slope):
    z = device.pool().empty(x.shape, x.dtype)
    apply(_rows(x), center, scale, shift, slope, _rows(z))
    return z


def _at_winners(dy, x, center, scale, shift, slope):
    """dy at the winner of its window, 0 elsewhere."""
    g = device.pool().empty(x.shape, x.dtype)
    pool.max_backward(dy, _applied(x, center, scale, shift, slope), *POOL, g)
    return g
