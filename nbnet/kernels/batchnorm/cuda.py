"""Batch normalisation on CUDA: threads walk down columns of channels, four at a time.

Sums run in T over a few rows, then in float64. Blocks write partial results, and a small kernel merges them in order. Kernels that
follow a reduction start at the end of the array, which is still in the level-2 cache.
"""

import numpy as np
from numba import cuda

from nbnet.kernels.activations import SMOOTH, TABLE
from nbnet.kernels.batchnorm.cuda_max_pool import (  # noqa: F401  # kernels of this module
    apply_max_pool,
    backward_apply_max_pool,
    backward_reduce_max_pool,
)
from nbnet.kernels.batchnorm.cuda_smooth import TEMPLATES, make
from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import activate4, through4
from nbnet.kernels.gpu.columns import (
    PER_THREAD,
    RUN,
    columns,
    columns_of_sums,
    gather,
    gather_weights,
    merge_sums,
    unless_masked4,
    write_sums,
)
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import add4, load, multiply4, multiply_add4, run, store, subtract4, wide4
from nbnet.kernels.gpu.reductions import moments  # noqa: F401
from nbnet.kernels.tables import made_from_table

__getattr__, __dir__ = made_from_table(globals(), TEMPLATES, make, [TABLE[name] for name in SMOOTH])

# ------------------------------------------------------------------------------------------------------ apply


@kernel
def _apply(x, center, scale, shift, slope, size, channels, period, rows, y):
    """rows: super-rows; the last may be partial."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    row, step = rows - 1 - (cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y), cuda.gridDim.x * cuda.blockDim.y
    while row - step >= 0:
        at, next_at = 4 * (row * period + column), 4 * ((row - step) * period + column)
        a, b = load(x, at, size), load(x, next_at, size)
        store(y, at, size, activate4(multiply_add4(subtract4(a, center), scale, shift), slope))
        store(y, next_at, size, activate4(multiply_add4(subtract4(b, center), scale, shift), slope))
        row -= 2 * step
    if row >= 0:
        at = 4 * (row * period + column)
        store(y, at, size, activate4(multiply_add4(subtract4(load(x, at, size), center), scale, shift), slope))


def apply(x, center, scale, shift, slope, y):
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    run(_apply, layout.grid, layout.block, x, center, scale, shift, x.dtype.type(slope), x.size, channels, layout.period, rows, y)


# -------------------------------------------------------------------------------------------- backward_reduce


@kernel
def _backward_reduce(dy, x, center, scale, shift, slope, size, channels, period, rows, partials):
    """rows: super-rows; the last may be partial, and dy is loaded as 0 beyond the array."""
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
            g0 = through4(g0, multiply_add4(d0, scale, shift), slope)
            g1 = through4(g1, multiply_add4(d1, scale, shift), slope)
            sum_g = add4(sum_g, add4(g0, g1))
            sum_gx = multiply_add4(g0, d0, multiply_add4(g1, d1, sum_gx))
            row += 2 * step
        if row < last:
            at = 4 * (row * period + column)
            d = subtract4(load(x, at, size), center)
            g = through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
            sum_g = add4(sum_g, g)
            sum_gx = multiply_add4(g, d, sum_gx)
            row += step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


@kernel
def _weighted_backward_reduce(dy, x, weights, per_element, center, scale, shift, slope, size, channels, period, rows, partials):
    """As _backward_reduce, with weights."""
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
        while row < last:
            at = 4 * (row * period + column)
            d = subtract4(load(x, at, size), center)
            g = through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
            w = gather_weights(weights, at, channels, per_element, size)
            sum_g = add4(sum_g, unless_masked4(w, g, zero))
            sum_gx = add4(sum_gx, unless_masked4(w, multiply4(g, d), zero))
            row += step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


def backward_reduce(dy, x, weights, center, scale, shift, slope, partials, sum_g, sum_gx):
    channels, slope = x.shape[1], x.dtype.type(slope)
    layout = columns_of_sums(x.size, channels)
    blocks, period = layout.grid[0], layout.period
    rows = -(-x.size // (4 * period))
    partials = device.pool().empty((blocks, 2, 4 * period), np.float64)
    rest = (center, scale, shift, slope, x.size, channels, period, rows, partials)
    if weights is None:
        run(_backward_reduce, layout.grid, layout.block, dy, x, *rest)
    else:
        run(_weighted_backward_reduce, layout.grid, layout.block, dy, x, weights, weights.size == x.size, *rest)
    merge_sums(partials, layout, channels, sum_g, sum_gx)


# --------------------------------------------------------------------------------------------- backward_apply


@kernel
def _backward_apply(dy, x, center, scale, shift, slope, a, b, c, size, channels, period, rows, dx):
    """rows: super-rows; the last may be partial."""
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
        g0 = through4(g0, multiply_add4(d0, scale, shift), slope)
        g1 = through4(g1, multiply_add4(d1, scale, shift), slope)
        store(dx, at, size, multiply_add4(a, g0, multiply_add4(c, d0, b)))
        store(dx, next_at, size, multiply_add4(a, g1, multiply_add4(c, d1, b)))
        row -= 2 * step
    if row >= 0:
        at = 4 * (row * period + column)
        d = subtract4(load(x, at, size), center)
        g = through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
        store(dx, at, size, multiply_add4(a, g, multiply_add4(c, d, b)))


@kernel
def _weighted_backward_apply(dy, x, weights, per_element, center, scale, shift, slope, a, b, c, size, channels, period, rows, dx):
    """As _backward_apply, with weights."""
    column, zero = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, x.dtype.type(0)
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    a, b, c = gather(a, 4 * column, channels), gather(b, 4 * column, channels), gather(c, 4 * column, channels)
    for row in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, rows, cuda.gridDim.x * cuda.blockDim.y):
        at = 4 * (row * period + column)
        d = subtract4(load(x, at, size), center)
        g = through4(load(dy, at, size), multiply_add4(d, scale, shift), slope)
        w = gather_weights(weights, at, channels, per_element, size)
        rest = unless_masked4(w, multiply4(w, multiply_add4(c, d, b)), zero)
        store(dx, at, size, multiply_add4(a, unless_masked4(w, g, zero), rest))


def backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    rest = (center, scale, shift, x.dtype.type(slope), a, b, c, x.size, channels, layout.period, rows, dx)
    if weights is None:
        run(_backward_apply, layout.grid, layout.block, dy, x, *rest)
    else:
        run(_weighted_backward_apply, layout.grid, layout.block, dy, x, weights, weights.size == x.size, *rest)
