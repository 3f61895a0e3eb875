"""Group normalisation on CUDA: a group of threads computes the statistics of each row and group of channels.

As in the contract, statistics and xhat are float64: a group may have two values, whose gradients cancel to the last digit. The sums
for gamma and beta run down columns of channels, as in batch normalisation.
"""

import math

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.columns import BLOCKS_OF_SUMS, columns, merge_sums, write_sums
from nbnet.kernels.gpu.compile import check_count, formula, kernel
from nbnet.kernels.gpu.launch import add4, divide, load, multiply_add4, row_sum, rows, run, wide4
from nbnet.kernels.groupnorm import TINY

PER_THREAD = 16  # vectors per thread, for sums down a column


@formula
def _element(row, i, points, channels, width):
    """The index of value i of group row % groups of example row // groups, and its channel."""
    n, g = divide(row, channels // width)
    p, c = divide(i, width)
    return (n * points + p) * channels + g * width + c, g * width + c


# ---------------------------------------------------------------------------------------------------- forward


@kernel
def _forward(x, count, points, channels, width, gamma, beta, eps, centered, mean, inv_std, y, group):
    """count: examples times groups."""
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = points * width if row < count else 0  # all threads stay for the reductions
    row = min(row, count - 1)
    origin = 0.0
    if centered and last > 0:  # a row that is another group's may have been overwritten, if y is x
        origin = np.float64(x[_element(row, 0, points, channels, width)[0]])
    total = 0.0
    for i in range(first, last, group):
        total += np.float64(x[_element(row, i, points, channels, width)[0]]) - origin
    center = origin + row_sum(total, group, mean) / (points * width) if centered else 0.0
    squares = 0.0
    for i in range(first, last, group):
        d = np.float64(x[_element(row, i, points, channels, width)[0]]) - center
        squares += d * d
    var = row_sum(squares, group, mean) / (points * width) + eps
    scale = 1.0 / math.sqrt(TINY if var < TINY else var)  # NaN stays NaN
    if first == 0 and last > 0:
        mean[row] = center
        inv_std[row] = scale
    for i in range(first, last, group):
        at, c = _element(row, i, points, channels, width)
        y[at] = (np.float64(x[at]) - center) * scale * np.float64(gamma[c]) + np.float64(beta[c])


def forward(x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y):
    examples, points, channels = x.shape
    width = channels // groups
    check_count(points * width)
    sizes = (examples * groups, points, channels, width)
    rows(_forward, examples * groups, points * width, x, *sizes, gamma, beta, eps, centered, mean, inv_std, y)


# --------------------------------------------------------------------------------------------------- backward


@kernel
def _backward(dy, x, count, points, channels, width, gamma, mean, inv_std, centered, dx, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = points * width if row < count else 0
    row = min(row, count - 1)
    center, scale = np.float64(mean[row]), np.float64(inv_std[row])
    sum_g, sum_gx = 0.0, 0.0
    for i in range(first, last, group):
        at, c = _element(row, i, points, channels, width)
        g = np.float64(dy[at]) * np.float64(gamma[c])
        sum_g += g
        sum_gx += g * ((np.float64(x[at]) - center) * scale)
    mean_g = row_sum(sum_g, group, mean) / (points * width) if centered else 0.0
    mean_gx = row_sum(sum_gx, group, mean) / (points * width)
    for i in range(first, last, group):
        at, c = _element(row, i, points, channels, width)
        g = np.float64(dy[at]) * np.float64(gamma[c])
        dx[at] = (g - mean_g - (np.float64(x[at]) - center) * scale * mean_gx) * scale


@formula
def _xhat(x, at, size, points, channels, width, mean, inv_std):
    """xhat of the element `at`, 0 beyond the array."""
    if at >= size:
        return 0.0
    m, c = divide(at, channels)
    row = divide(m, points)[0] * (channels // width) + divide(c, width)[0]
    return (np.float64(x[at]) - np.float64(mean[row])) * np.float64(inv_std[row])


@kernel
def _parameter_sums(dy, x, size, points, channels, width, period, super_rows, mean, inv_std, partials):
    """Partial sums of dy and of dy * xhat in columns; the last of super_rows may be partial."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    sum_g, sum_gx = (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)
    row = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    if column >= period:
        row = super_rows
    while row < super_rows:
        at = 4 * (row * period + column)
        g = wide4(load(dy, at, size))
        xhat = (
            _xhat(x, at, size, points, channels, width, mean, inv_std),
            _xhat(x, at + 1, size, points, channels, width, mean, inv_std),
            _xhat(x, at + 2, size, points, channels, width, mean, inv_std),
            _xhat(x, at + 3, size, points, channels, width, mean, inv_std),
        )
        sum_g, sum_gx = add4(sum_g, g), multiply_add4(g, xhat, sum_gx)
        row += cuda.gridDim.x * cuda.blockDim.y
    write_sums(sum_g, sum_gx, period, partials)


def backward(dy, x, groups, gamma, mean, inv_std, centered, partials, dgamma, dbeta, dx):
    examples, points, channels = x.shape
    check_count(x.size)
    width = channels // groups
    layout = columns(x.size, channels, PER_THREAD, BLOCKS_OF_SUMS)
    super_rows = -(-x.size // (4 * layout.period))
    partials = device.pool().empty((layout.grid[0], 2, 4 * layout.period), np.float64)
    sizes = (x.size, points, channels, width, layout.period, super_rows)
    run(_parameter_sums, layout.grid, layout.block, dy, x, *sizes, mean, inv_std, partials)  # before dx, which may be dy
    merge_sums(partials, layout, channels, dbeta, dgamma)
    sizes = (examples * groups, points, channels, width)
    rows(_backward, examples * groups, points * width, dy, x, *sizes, gamma, mean, inv_std, centered, dx)
