"""Arithmetic on arrays on CUDA."""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.columns import move_columns
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import BLOCKS, THREADS, WARP, add4, divide, elementwise, load, multiply4, row_sum, run, store

LINES = THREADS // WARP  # of a block that adds up rows: each takes every LINES-th row of WARP channels

# -------------------------------------------------------------------------------------------- add, multiply, scale


@kernel
def _add(a, b, size, y):
    at = 4 * cuda.grid(1)
    store(y, at, size, add4(load(a, at, size), load(b, at, size)))


def add(a, b, y):
    elementwise(_add, a.size, a, b, a.size, y)


@kernel
def _multiply(a, b, size, y):
    at = 4 * cuda.grid(1)
    store(y, at, size, multiply4(load(a, at, size), load(b, at, size)))


def multiply(a, b, y):
    elementwise(_multiply, a.size, a, b, a.size, y)


@kernel
def _scale(a, factor, size, y):
    at = 4 * cuda.grid(1)
    store(y, at, size, multiply4(load(a, at, size), (factor, factor, factor, factor)))


def scale(a, factor, y):
    elementwise(_scale, a.size, a, a.dtype.type(factor), a.size, y)


# ---------------------------------------------------------------------------------------------------- squares


@kernel
def _squares(a, size, partials):
    """One sum per block."""
    total = 0.0
    for at in range(4 * cuda.grid(1), size, 4 * cuda.gridsize(1)):
        v = load(a, at, size)
        total += np.float64((v[0] * v[0] + v[1] * v[1]) + (v[2] * v[2] + v[3] * v[3]))
    total = row_sum(total, THREADS, partials)
    if cuda.threadIdx.x == 0:
        partials[cuda.blockIdx.x] = total


@kernel
def _total(partials, count, total):
    """One block adds up the sums of all blocks."""
    mine = 0.0
    for i in range(cuda.threadIdx.x, count, THREADS):
        mine += partials[i]
    mine = row_sum(mine, THREADS, partials)
    if cuda.threadIdx.x == 0:
        total[0] = mine


def squares(a, total):
    blocks = max(1, min(BLOCKS, -(-a.size // (16 * THREADS))))
    partials = device.pool().empty((blocks,), np.float64)
    run(_squares, blocks, THREADS, a, a.size, partials)
    run(_total, 1, THREADS, partials, blocks, total)


# ------------------------------------------------------------------------------------------------------- swap


@kernel
def _swap(x, size, b, c, d, y):
    """Each thread writes one element; neighbouring threads write neighbouring elements."""
    at = cuda.grid(1)
    if at < size:
        rest, i_d = divide(at, d)
        rest, i_b = divide(rest, b)
        i_a, i_c = divide(rest, c)
        y[at] = x[((i_a * b + i_b) * c + i_c) * d + i_d]


def swap(x, y):
    if x.size:
        _, b, c, d = x.shape
        run(_swap, -(-x.size // THREADS), THREADS, x, x.size, b, c, d, y)


# ----------------------------------------------------------------------------------------------- copy_columns


def copy_columns(x, first, y, at, count):
    move_columns(x, x.shape[1], first, y, y.shape[1], at, count)


# ------------------------------------------------------------------------------- multiply_rows, multiply_sum


@kernel
def _multiply_rows(a, b, size, rows, channels, y):
    """Each thread writes one element."""
    i = cuda.grid(1)
    if i < size:
        row, c = divide(i, channels)
        n, _ = divide(row, rows)
        y[i] = a[i] * b[n * channels + c]


def multiply_rows(a, b, y):
    if a.size:
        run(_multiply_rows, -(-a.size // THREADS), THREADS, a, b, a.size, a.shape[1], a.shape[2], y)


@kernel
def _multiply_sum(a, b, rows, channels, y):
    """A block has one example and WARP channels (x); its LINES (y) are added in order."""
    shared = cuda.shared.array(THREADS, np.float64)
    c = cuda.blockIdx.y * WARP + cuda.threadIdx.x
    total = 0.0
    if c < channels:
        for m in range(cuda.threadIdx.y, rows, LINES):
            i = (cuda.blockIdx.x * rows + m) * channels + c
            total += np.float64(a[i]) * np.float64(b[i])
    shared[cuda.threadIdx.y * WARP + cuda.threadIdx.x] = total
    cuda.syncthreads()
    if cuda.threadIdx.y == 0 and c < channels:
        for line in range(1, LINES):
            total += shared[line * WARP + cuda.threadIdx.x]
        y[cuda.blockIdx.x * channels + c] = total


def multiply_sum(a, b, y):
    if y.size:
        run(_multiply_sum, (a.shape[0], -(-a.shape[2] // WARP)), (WARP, LINES), a, b, a.shape[1], a.shape[2], y)
