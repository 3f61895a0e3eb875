"""Rows of channels on CUDA, as columns of vectors of four: the layout, and sums down the columns.

A vector column holds the same channels in every row if it steps by lcm(C, 4) elements. So a matrix is read as super-rows of lcm(C, 4)
elements: for C = 64, super-rows of 16 vectors; for C = 3, of 3 vectors (4 rows); for C = 130, of 65 vectors (2 rows). One kernel of full
width then serves every C. Blocks write partial results (K, ..., lcm(C, 4)), and a small kernel merges them in order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import cuda

from nbnet.kernels.gpu.compile import SIMULATED, formula, function, kernel, kernel_of
from nbnet.kernels.gpu.launch import BLOCKS, MULTIPROCESSORS, THREADS, add4, divide, load, run, store

MERGERS = (4, 2) if SIMULATED else (8, 128)  # channels and partial results per merging block
MERGING = MERGERS[0] * MERGERS[1]
BLOCKS_OF_SUMS = BLOCKS // 2 + 1 if SIMULATED else BLOCKS // 2  # fewer blocks, so fewer partial results to merge
FEWEST = 4  # rows per thread of a sum, where more blocks are needed to fill the multiprocessors
RUN = 64  # rows summed in T, about their own origin: that limits cancellation to a factor of RUN
PER_THREAD = 8  # vectors per thread, in kernels without sums


class Columns(NamedTuple):
    """A matrix of rows of C channels as columns of vectors.

    period: vectors of a super-row. rows: whole super-rows; the rest is partial. grid: (blocks of rows, blocks of columns);
    block: (columns, rows).
    """

    period: int
    rows: int
    grid: tuple[int, int]
    block: tuple[int, int]


def columns(size: int, channels: int, per_thread: int, blocks: int = BLOCKS) -> Columns:
    """The layout of `size` elements in rows of `channels`: at most `blocks` blocks, with about per_thread vectors per thread."""
    period = math.lcm(channels, 4) // 4
    tiles = -(-period // (THREADS // 2)) if period > THREADS else 1
    width = -(-period // tiles)
    height = max(1, THREADS // width)
    rows = size // (4 * period)
    count = -(-rows // (height * per_thread))
    return Columns(period, rows, (max(1, min(count, blocks // tiles)), tiles), (width, height))


def columns_of_sums(size: int, channels: int) -> Columns:
    """The layout for sums down the columns: from FEWEST to RUN rows per thread, as many as leave two blocks for each multiprocessor."""
    few, many = columns(size, channels, RUN, BLOCKS_OF_SUMS), columns(size, channels, FEWEST, BLOCKS_OF_SUMS)
    blocks, tiles = few.grid
    return few._replace(grid=(max(blocks, min(many.grid[0], 2 * MULTIPROCESSORS // tiles)), tiles))


@formula
def wrap(channel, channels):
    """`channel`, or 0 if it is one past the last."""
    return channel if channel < channels else channel - channels


@formula
def gather(array, index, channels):
    """The numbers of array (C,) for the vector column that starts with element `index`."""
    c0 = index % channels
    c1 = wrap(c0 + 1, channels)
    c2 = wrap(c1 + 1, channels)
    return array[c0], array[c1], array[c2], array[wrap(c2 + 1, channels)]


@formula
def gather_weights(weights, index, channels, per_element, size):
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


@formula
def _unless_masked(w, v, zero):
    return v if w > zero or math.isfinite(v) else zero


@formula
def unless_masked4(w, v, zero):
    """v, but 0 where the weight w is 0 and v is not finite: whatever a masked row holds, it adds nothing to a sum."""
    a, b = _unless_masked(w[0], v[0], zero), _unless_masked(w[1], v[1], zero)
    return a, b, _unless_masked(w[2], v[2], zero), _unless_masked(w[3], v[3], zero)


# -------------------------------------------------------------------------------------------------------- sums


@function
def write_sums(a, b, period, partials):
    """Add up a and b, four float64 each, over the rows of a block, in a fixed order; write the sums to the block's place in partials
    (K, 2, 4 * period)."""
    shared = cuda.shared.array((8, THREADS), np.float64)
    me = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    height = cuda.blockDim.y
    while height > 1:
        for i in range(4):
            shared[i, me] = a[i]
            shared[4 + i, me] = b[i]
        cuda.syncthreads()
        half = (height + 1) // 2
        if cuda.threadIdx.y + half < height:
            other = me + half * cuda.blockDim.x
            a = add4(a, (shared[0, other], shared[1, other], shared[2, other], shared[3, other]))
            b = add4(b, (shared[4, other], shared[5, other], shared[6, other], shared[7, other]))
        cuda.syncthreads()
        height = half
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if cuda.threadIdx.y == 0 and column < period:
        at = 2 * cuda.blockIdx.x * period + column
        store(partials, 4 * at, partials.size, a)
        store(partials, 4 * (at + period), partials.size, b)


@kernel_of(MERGING, 1)
def _merge_sums(partials, blocks, period, channels, sum_g, sum_gx):
    """A block has MERGERS[0] channels (x). Each of MERGERS[1] threads (y) adds up a strided share of the partial results, then those are
    added, in order."""
    shared = cuda.shared.array((2, MERGING), np.float64)
    channel = cuda.blockIdx.x * MERGERS[0] + cuda.threadIdx.x
    me = cuda.threadIdx.y * MERGERS[0] + cuda.threadIdx.x
    g, gx = 0.0, 0.0
    if channel < channels:
        for k in range(cuda.threadIdx.y, blocks, MERGERS[1]):
            for lane in range(channel, 4 * period, channels):
                at = 8 * k * period + lane
                g += partials[at]
                gx += partials[at + 4 * period]
    height = MERGERS[1]
    while height > 1:
        shared[0, me], shared[1, me] = g, gx
        cuda.syncthreads()
        height //= 2
        if cuda.threadIdx.y < height:
            g += shared[0, me + height * MERGERS[0]]
            gx += shared[1, me + height * MERGERS[0]]
        cuda.syncthreads()
    if cuda.threadIdx.y == 0 and channel < channels:
        sum_g[channel] = g
        sum_gx[channel] = gx


def merge_sums(partials, layout, channels, sum_g, sum_gx):
    """Launch the kernel that merges the partials (K, 2, 4 * period) of the blocks of `layout`."""
    run(_merge_sums, -(-channels // MERGERS[0]), MERGERS, partials, layout.grid[0], layout.period, channels, sum_g, sum_gx)


@kernel
def _move_columns(x, width_x, first, y, width_y, start, count, size):
    """Each thread copies one element."""
    i = cuda.grid(1)
    if i < size:
        row, c = divide(i, count)
        y[row * width_y + start + c] = x[row * width_x + first + c]


def move_columns(x, width_x, first, y, width_y, at, count):
    """Copy `count` columns of the rows of x, of width_x numbers, from column `first`, to column `at` of those of y, of width_y numbers."""
    size = x.size // width_x * count
    if size:
        run(_move_columns, -(-size // THREADS), THREADS, x, width_x, first, y, width_y, at, count, size)
