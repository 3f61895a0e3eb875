"""Batch normalisation and a smooth activation in one pass, on CUDA."""

import math

import numpy as np
from numba import cuda

from nbnet.kernels.batchnorm import TANH
from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import logistic, sigmoid_slope, tanh_slope
from nbnet.kernels.gpu.columns import BLOCKS_OF_SUMS, PER_THREAD, RUN, columns, gather, merge_sums, write_sums
from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import add4, load, multiply_add4, run, store, subtract4, wide4

# ------------------------------------------------------------------------------------------------------ apply


@formula
def _activated(z, activation, one):
    return math.tanh(z) if activation == TANH else logistic(z, one)


@kernel
def _apply_smooth(x, center, scale, shift, activation, size, channels, period, rows, y):
    """rows: super-rows; the last may be partial."""
    column, one = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, x.dtype.type(1)
    if column >= period:
        return
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    for row in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, rows, cuda.gridDim.x * cuda.blockDim.y):
        at = 4 * (row * period + column)
        a, b, c, d = multiply_add4(subtract4(load(x, at, size), center), scale, shift)
        a, b = _activated(a, activation, one), _activated(b, activation, one)
        c, d = _activated(c, activation, one), _activated(d, activation, one)
        store(y, at, size, (a, b, c, d))


def apply_smooth(x, center, scale, shift, activation, y):
    channels = x.shape[1]
    layout = columns(x.size, channels, PER_THREAD, 1 << 30)
    rows = -(-x.size // (4 * layout.period))
    run(_apply_smooth, layout.grid, layout.block, x, center, scale, shift, activation, x.size, channels, layout.period, rows, y)


# -------------------------------------------------------------------------------------------- backward_reduce


@formula
def _through(dy, y, activation, one):
    return tanh_slope(dy, y, one) if activation == TANH else sigmoid_slope(dy, y, one)


@kernel
def _backward_reduce_smooth(dy, y, x, center, activation, size, channels, period, rows, partials, g):
    """rows: super-rows; the last may be partial, and dy is loaded as 0 beyond the array."""
    column, one = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x, x.dtype.type(1)
    zero = x.dtype.type(0)
    zeros = zero, zero, zero, zero
    wide_g, wide_gx = wide4(zeros), wide4(zeros)
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    center = gather(center, 4 * column, channels)
    while row < rows:
        sum_g, sum_gx = zeros, zeros
        last = min(rows, row + RUN * step)
        while row < last:
            at = 4 * (row * period + column)
            d, v, w = subtract4(load(x, at, size), center), load(y, at, size), load(dy, at, size)
            a, b = _through(w[0], v[0], activation, one), _through(w[1], v[1], activation, one)
            w = a, b, _through(w[2], v[2], activation, one), _through(w[3], v[3], activation, one)
            store(g, at, size, w)
            sum_g = add4(sum_g, w)
            sum_gx = multiply_add4(w, d, sum_gx)
            row += step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


def backward_reduce_smooth(dy, y, x, center, activation, partials, g, sum_g, sum_gx):
    channels = x.shape[1]
    layout = columns(x.size, channels, RUN, BLOCKS_OF_SUMS)
    blocks, period = layout.grid[0], layout.period
    rows = -(-x.size // (4 * period))
    partials = device.pool().empty((blocks, 2, 4 * period), np.float64)
    run(_backward_reduce_smooth, layout.grid, layout.block, dy, y, x, center, activation, x.size, channels, period, rows, partials, g)
    merge_sums(partials, layout, channels, sum_g, sum_gx)
