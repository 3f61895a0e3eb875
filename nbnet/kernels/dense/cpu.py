"""The dense layer on the CPU: vector register tiles over a grid of rows and columns."""

import numpy as np

from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.epilogue import activate_rows
from nbnet.kernels.cpu.gemm import TERMS, gemm
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import LINE, prefetch
from nbnet.kernels.cpu.reductions import add_rows, merge_moments, moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.transpose import transpose
from nbnet.kernels.cpu.vector import load, store
from nbnet.kernels.dense import FLAT, PAD, cell, grid
from nbnet.kernels.dense.cpu_norm import backward_weights_norm_parallel, backward_weights_norm_serial  # noqa: F401

MANY = 32  # rows of dy from which transposing a gradient of few outputs pays
PACKED = 64  # rows of a result from which packing b pays: numbers a power of two apart map to few sets of the caches
DEPTH = 256  # terms of a sum that are processed while the rows of the next ones are prefetched

# ---------------------------------------------------------------------------------------------------- a cell


@body
def _pack(b, at, stride, rows, columns, packed, width):
    """Copy rows of `columns` numbers, `stride` apart, to rows that are `width` apart."""
    for i in range(rows):
        for j in range(0, columns, lanes(b)):
            store(packed, i * width + j, columns - j, load(b, at + i * stride + j, columns - j))


@body
def _multiply_block(rows, terms, a, a_at, a_r, a_k, b, b_at, b_k, part_of_rows, init, init_at, c, c_at, c_r, columns):
    """c[r, j] = init[j] + sum over `terms` of a[r, k] * b[k, j], for `columns` columns of b and c, whose rows are b_k and c_r numbers
    apart.

    If these columns are part of larger rows of b, in blocks of DEPTH terms: the next rows of b are prefetched (of whole rows hardware
    prefetching does it), and b is packed if c has many rows.
    """
    step = DEPTH if part_of_rows else terms
    packs, width = part_of_rows and rows >= PACKED, columns + PAD
    packed = np.empty(DEPTH * width if packs else 0, b.dtype)
    for k in range(0, terms, step):
        depth = min(step, terms - k)
        for i in range(k + depth, min(k + depth + step, terms)):
            for j in range(0, columns, LINE // b.itemsize):
                prefetch(b, b_at + i * b_k + j)
        block, at, stride = b, b_at + k * b_k, b_k
        if packs:
            _pack(b, at, b_k, depth, columns, packed, width)
            block, at, stride = packed, 0, width
        start, start_at, start_r = (init, init_at, 0) if k == 0 else (c, c_at, c_r)
        gemm(rows, a, a_at + k * a_k, 0, a_r, a_k, block, at, 0, stride, 1, depth, start, start_at, start_r, c, c_at, c_r, columns)


@body
def _multiply_long(rows, terms, a, a_at, a_r, a_k, b, b_at, b_k, part_of_rows, init, init_at, c, c_at, c_r, columns):
    """As _multiply_block, for more than TERMS terms: in float64 from blocks of TERMS."""
    sums, total = np.zeros((rows + 1) * columns, c.dtype), np.zeros(rows * columns)
    zeros = rows * columns  # the last row of sums stays 0
    for k in range(0, terms, TERMS):
        depth, from_a, from_b = min(TERMS, terms - k), a_at + k * a_k, b_at + k * b_k
        _multiply_block(rows, depth, a, from_a, a_r, a_k, b, from_b, b_k, part_of_rows, sums, zeros, sums, 0, columns, columns)
        for i in range(total.size):
            total[i] += np.float64(sums[i])
    for r in range(rows):
        for j in range(columns):
            c[c_at + r * c_r + j] = total[r * columns + j] + np.float64(init[init_at + j])


@body
def _multiply(rows, terms, a, a_at, a_r, a_k, b, b_at, b_k, part_of_rows, init, init_at, c, c_at, c_r, columns):
    """As _multiply_block, for any number of terms."""
    if terms > TERMS:
        _multiply_long(rows, terms, a, a_at, a_r, a_k, b, b_at, b_k, part_of_rows, init, init_at, c, c_at, c_r, columns)
    else:
        _multiply_block(rows, terms, a, a_at, a_r, a_k, b, b_at, b_k, part_of_rows, init, init_at, c, c_at, c_r, columns)


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(part, down, across, x, weight, bias, slope, y, partials):
    """A cell's rows first to last and columns left to right of y; their statistics too, unless partials (down, 3, O) is None."""
    first, last, left, right = cell(part, down, across, y.shape[0], y.shape[1])
    inputs, outputs = weight.shape
    rows, columns, to = last - first, right - left, first * outputs + left
    a, b, c = x.reshape(-1), weight.reshape(-1), y.reshape(-1)
    in_blocks = columns < outputs and rows >= FLAT  # weights of a few rows arrive faster without instructions that prefetch them
    _multiply(rows, inputs, a, first * inputs, inputs, 1, b, left, outputs, in_blocks, bias, left, c, to, outputs, columns)
    if slope != 1:
        activate_rows(c, to, rows, outputs, columns, slope)
    if partials is not None:
        moments_of_rows(y, None, first, last, left, right, partials[part // across])


@serial
def forward_serial(x, weight, bias, slope, y, partials, mean, m2):
    down, across = grid(y.shape[0], y.shape[1], x.shape[1])
    for k in range(down * across):
        _forward(k, down, across, x, weight, bias, slope, y, partials)
    if partials is not None:
        merge_moments(partials, mean, m2)


@parallel
def forward_parallel(x, weight, bias, slope, y, partials, mean, m2):
    down, across = grid(y.shape[0], y.shape[1], x.shape[1])
    parallel_for(down * across, _forward, (down, across, x, weight, bias, slope, y, partials))
    if partials is not None:
        merge_moments(partials, mean, m2)


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _backward_data(part, down, across, dy, weight, transposed, dx):
    """A cell's rows first to last and columns left to right of dx; transposed[part] (O + 1, W) is its own."""
    first, last, left, right = cell(part, down, across, dx.shape[0], dx.shape[1])
    transposed = transposed[part]
    inputs, outputs = weight.shape
    a, b, c = dy.reshape(-1), transposed.reshape(-1), dx.reshape(-1)
    width = transposed.shape[1]
    transpose(weight.reshape(-1), left * outputs, outputs, right - left, outputs, b, 0, width)
    transposed[outputs] = 0
    at, zeros, to = first * outputs, outputs * width, first * inputs + left
    rows, columns = last - first, right - left
    if outputs > TERMS:
        _multiply_long(rows, outputs, a, at, outputs, 1, b, 0, width, False, b, zeros, c, to, inputs, columns)
    else:
        gemm(rows, a, at, 0, outputs, 1, b, 0, 0, width, 1, outputs, b, zeros, 0, c, to, inputs, columns)


@serial
def backward_data_serial(dy, weight, transposed, dx):
    down, across = grid(dx.shape[0], dx.shape[1], dy.shape[1])
    for k in range(down * across):
        _backward_data(k, down, across, dy, weight, transposed, dx)


@parallel
def backward_data_parallel(dy, weight, transposed, dx):
    down, across = grid(dx.shape[0], dx.shape[1], dy.shape[1])
    parallel_for(down * across, _backward_data, (down, across, dy, weight, transposed, dx))


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _weights_of_few(x, dy, first, last, dweight):
    """Inputs first to last of dweight for few outputs. Computes its transpose, so that vectors are full of inputs."""
    outputs, width = dy.shape[1], last - first
    a, b, zeros = dy.reshape(-1), x.reshape(-1), outputs * width
    transposed = np.empty(zeros + width, x.dtype)
    transposed[zeros:] = 0  # the initial value of all rows
    rows, inputs = x.shape
    if rows > TERMS:
        _multiply_long(outputs, rows, a, 0, 1, outputs, b, first, inputs, False, transposed, zeros, transposed, 0, width, width)
    else:
        gemm(outputs, a, 0, 0, 1, outputs, b, first, 0, inputs, 1, rows, transposed, zeros, 0, transposed, 0, width, width)
    for i in range(width):
        for o in range(outputs):
            dweight[first + i, o] = transposed[o * width + i]


@body
def _backward_weights(part, down, across, x, dy, dweight, dbias):
    """A cell's inputs first to last and columns left to right of dweight, and with the first input those columns of dbias."""
    first, last, left, right = cell(part, down, across, dweight.shape[0], dweight.shape[1])
    rows, inputs = x.shape
    outputs = dy.shape[1]
    a, b, c = x.reshape(-1), dy.reshape(-1), dweight.reshape(-1)
    if rows >= MANY and 2 * outputs <= lanes(dy) <= last - first:
        _weights_of_few(x, dy, first, last, dweight)
    else:
        columns, to, zeros = right - left, first * outputs + left, (last - 1) * outputs + left
        for o in range(columns):  # the row that is written last is the initial value of all rows
            c[zeros + o] = 0
        _multiply(last - first, rows, a, first, 1, inputs, b, left, outputs, columns < outputs, c, zeros, c, to, outputs, columns)
    if first == 0:
        for o in range(left, right):
            dbias[o] = 0
        add_rows(b, left, rows, outputs, right - left, dbias, left)


@serial
def backward_weights_serial(x, dy, dweight, dbias):
    down, across = grid(dweight.shape[0], dweight.shape[1], x.shape[0])
    for k in range(down * across):
        _backward_weights(k, down, across, x, dy, dweight, dbias)


@parallel
def backward_weights_parallel(x, dy, dweight, dbias):
    down, across = grid(dweight.shape[0], dweight.shape[1], x.shape[0])
    parallel_for(down * across, _backward_weights, (down, across, x, dy, dweight, dbias))
