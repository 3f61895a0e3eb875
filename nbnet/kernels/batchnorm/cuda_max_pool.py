"""Batch normalisation, activation and a max-pool of 2 x 2 in one pass on CUDA.

Threads walk down the columns of the pooled image, four numbers at a time, and read the four windows below them: 128 bits at a time if
the channels are a multiple of four, else one number at a time. Backward recomputes the winners from x.
"""

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import activate4, through4
from nbnet.kernels.gpu.columns import PER_THREAD, RUN, columns, columns_of_sums, gather, merge_sums, write_sums
from nbnet.kernels.gpu.compile import formula, kernel
from nbnet.kernels.gpu.launch import (
    THREADS,
    add4,
    divide,
    load,
    load4,
    multiply4,
    multiply_add4,
    narrow,
    run,
    store,
    store4,
    subtract4,
    wide4,
)
from nbnet.kernels.gpu.pixels import check_pixels, offset
from nbnet.kernels.gpu.windows import better

# ---------------------------------------------------------------------------------------------------- windows


@formula
def _corner(pixel, channel, shape, out_shape):
    """The index in x where the window of a pixel of y starts."""
    rest, column = divide(pixel, out_shape[2])
    image, row = divide(rest, out_shape[1])
    return offset(shape, narrow(image), narrow(2 * row), narrow(2 * column), channel)


@formula
def _corners(row, column, period, shape, out_shape):
    """The indices in x where the windows of four neighbours in y start: vector `column` of super-row `row`."""
    channels, at = shape[3], 4 * column
    if channels % 4 == 0:
        first = _corner(row, at, shape, out_shape)
        return first, first + 1, first + 2, first + 3
    pixel = row * (4 * period // channels)
    p0, c0 = divide(at, channels)
    p1, c1 = divide(at + 1, channels)
    p2, c2 = divide(at + 2, channels)
    p3, c3 = divide(at + 3, channels)
    a, b = _corner(pixel + p0, c0, shape, out_shape), _corner(pixel + p1, c1, shape, out_shape)
    return a, b, _corner(pixel + p2, c2, shape, out_shape), _corner(pixel + p3, c3, shape, out_shape)


@formula
def _read(x, at, by, channels):
    """The numbers of x at four indices plus `by`; 0 beyond the array."""
    if channels % 4 == 0:
        return load4(x, at[0] + by)
    zero = x.dtype.type(0)
    return (
        x[at[0] + by] if at[0] + by < x.size else zero,
        x[at[1] + by] if at[1] + by < x.size else zero,
        x[at[2] + by] if at[2] + by < x.size else zero,
        x[at[3] + by] if at[3] + by < x.size else zero,
    )


@formula
def _write(x, at, by, channels, values):
    """Write values where _read reads them."""
    if channels % 4 == 0:
        store4(x, at[0] + by, values)
    else:
        if at[0] + by < x.size:
            x[at[0] + by] = values[0]
        if at[1] + by < x.size:
            x[at[1] + by] = values[1]
        if at[2] + by < x.size:
            x[at[2] + by] = values[2]
        if at[3] + by < x.size:
            x[at[3] + by] = values[3]


@formula
def _deviations(x, at, shape, center):
    """x - center at the four pixels of each window, in row-major order."""
    right, below = shape[3], shape[2] * shape[3]
    d0, d1 = _read(x, at, 0, shape[3]), _read(x, at, right, shape[3])
    d2, d3 = _read(x, at, below, shape[3]), _read(x, at, below + right, shape[3])
    return subtract4(d0, center), subtract4(d1, center), subtract4(d2, center), subtract4(d3, center)


@formula
def _winner(y0, y1, y2, y3):
    """The largest and its place: of equals the first; NaN is the largest."""
    best, place = better(y0, narrow(0), y1, narrow(1))
    best, place = better(best, place, y2, narrow(2))
    return better(best, place, y3, narrow(3))


@formula
def _winners(d, scale, shift, slope):
    """The largest activation of each window and its place, from the four pixels' x - center."""
    y0 = activate4(multiply_add4(d[0], scale, shift), slope)
    y1 = activate4(multiply_add4(d[1], scale, shift), slope)
    y2 = activate4(multiply_add4(d[2], scale, shift), slope)
    y3 = activate4(multiply_add4(d[3], scale, shift), slope)
    w0, w1 = _winner(y0[0], y1[0], y2[0], y3[0]), _winner(y0[1], y1[1], y2[1], y3[1])
    w2, w3 = _winner(y0[2], y1[2], y2[2], y3[2]), _winner(y0[3], y1[3], y2[3], y3[3])
    return (w0[0], w1[0], w2[0], w3[0]), (w0[1], w1[1], w2[1], w3[1])


@formula
def _choose(place, v0, v1, v2, v3):
    return v0 if place == 0 else v1 if place == 1 else v2 if place == 2 else v3


@formula
def _choose4(places, d):
    """For each window, the pixel of d at its place."""
    return (
        _choose(places[0], d[0][0], d[1][0], d[2][0], d[3][0]),
        _choose(places[1], d[0][1], d[1][1], d[2][1], d[3][1]),
        _choose(places[2], d[0][2], d[1][2], d[2][2], d[3][2]),
        _choose(places[3], d[0][3], d[1][3], d[2][3], d[3][3]),
    )


@formula
def _where(places, place, g, zero):
    """g in the windows whose winner is at `place`, else 0."""
    return (
        g[0] if places[0] == place else zero,
        g[1] if places[1] == place else zero,
        g[2] if places[2] == place else zero,
        g[3] if places[3] == place else zero,
    )


# --------------------------------------------------------------------------------------------- apply_max_pool


@kernel
def _apply_max_pool(x, shape, center, scale, shift, slope, size, period, rows, out_shape, y):
    """size: of y; rows: its super-rows; the last may be partial."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    channels = shape[3]
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    first, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    for row in range(rows - 1 - first, -1, -step):
        d = _deviations(x, _corners(row, column, period, shape, out_shape), shape, center)
        best, _ = _winners(d, scale, shift, slope)
        store(y, 4 * (row * period + column), size, best)


def apply_max_pool(x, center, scale, shift, slope, y):
    check_pixels(x.shape)
    layout = columns(y.size, x.shape[3], PER_THREAD, 1 << 30)
    rows = -(-y.size // (4 * layout.period))
    args = (x, x.shape, center, scale, shift, x.dtype.type(slope), y.size, layout.period, rows, y.shape, y)
    run(_apply_max_pool, layout.grid, layout.block, *args)


# ----------------------------------------------------------------------------------- backward_reduce_max_pool


@kernel
def _backward_reduce_max_pool(dy, x, shape, center, scale, shift, slope, size, period, rows, out_shape, partials):
    """As _backward_reduce, over the winners of the windows; other pixels have no gradient."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    channels, zero = shape[3], x.dtype.type(0)
    zeros = zero, zero, zero, zero
    wide_g, wide_gx = wide4(zeros), wide4(zeros)
    row, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    if column >= period:
        row = rows
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    while row < rows:
        sum_g, sum_gx = zeros, zeros
        for r in range(row, min(rows, row + RUN * step), step):
            window = _deviations(x, _corners(r, column, period, shape, out_shape), shape, center)
            _, places = _winners(window, scale, shift, slope)
            d = _choose4(places, window)
            g = through4(load(dy, 4 * (r * period + column), size), multiply_add4(d, scale, shift), slope)
            sum_g = add4(sum_g, g)
            sum_gx = multiply_add4(g, d, sum_gx)
        row += RUN * step
        wide_g, wide_gx = add4(wide_g, wide4(sum_g)), add4(wide_gx, wide4(sum_gx))
    write_sums(wide_g, wide_gx, period, partials)


def backward_reduce_max_pool(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    check_pixels(x.shape)
    channels = x.shape[3]
    layout = columns_of_sums(dy.size, channels)
    rows = -(-dy.size // (4 * layout.period))
    partials = device.pool().empty((layout.grid[0], 2, 4 * layout.period), np.float64)
    args = (dy, x, x.shape, center, scale, shift, x.dtype.type(slope), dy.size, layout.period, rows, dy.shape, partials)
    run(_backward_reduce_max_pool, layout.grid, layout.block, *args)
    merge_sums(partials, layout, channels, sum_g, sum_gx)


# ------------------------------------------------------------------------------------ backward_apply_max_pool


@kernel
def _backward_apply_max_pool(dy, x, shape, center, scale, shift, slope, a, b, c, size, period, rows, out_shape, dx):
    """dx in the windows. size: of dy; rows: its super-rows; the last may be partial."""
    column = cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    if column >= period:
        return
    channels, zero = shape[3], x.dtype.type(0)
    right, below = channels, shape[2] * channels
    center, scale, shift = gather(center, 4 * column, channels), gather(scale, 4 * column, channels), gather(shift, 4 * column, channels)
    a, b, c = gather(a, 4 * column, channels), gather(b, 4 * column, channels), gather(c, 4 * column, channels)
    first, step = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.gridDim.x * cuda.blockDim.y
    for row in range(rows - 1 - first, -1, -step):
        at = _corners(row, column, period, shape, out_shape)
        d = _deviations(x, at, shape, center)
        _, places = _winners(d, scale, shift, slope)
        z = multiply_add4(_choose4(places, d), scale, shift)
        g = multiply4(a, through4(load(dy, 4 * (row * period + column), size), z, slope))
        _write(dx, at, 0, channels, add4(_where(places, 0, g, zero), multiply_add4(c, d[0], b)))
        _write(dx, at, right, channels, add4(_where(places, 1, g, zero), multiply_add4(c, d[1], b)))
        _write(dx, at, below, channels, add4(_where(places, 2, g, zero), multiply_add4(c, d[2], b)))
        _write(dx, at, below + right, channels, add4(_where(places, 3, g, zero), multiply_add4(c, d[3], b)))


@kernel
def _backward_outside(x, shape, out_shape, outside, center, b, c, dx):
    """dx of the pixels in no window, `outside` per image: those of an odd last row, then of an odd last column."""
    height, width, channels = shape[1], shape[2], shape[3]
    rest, channel = divide(cuda.grid(1), channels)
    image, pixel = divide(rest, outside)
    if image < shape[0]:
        in_row = (height - 2 * out_shape[1]) * width
        place = (height - 1) * width + pixel if pixel < in_row else (pixel - in_row + 1) * width - 1
        at = (image * height * width + place) * channels + channel
        dx[at] = b[channel] + c[channel] * (x[at] - center[channel])


def backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, dx):
    check_pixels(x.shape)
    layout = columns(dy.size, x.shape[3], PER_THREAD, 1 << 30)
    rows = -(-dy.size // (4 * layout.period))
    args = (dy, x, x.shape, center, scale, shift, x.dtype.type(slope), a, b, c, dy.size, layout.period, rows, dy.shape, dx)
    run(_backward_apply_max_pool, layout.grid, layout.block, *args)
    outside = x.shape[1] * x.shape[2] - 4 * dy.shape[1] * dy.shape[2]
    threads = x.shape[0] * outside * x.shape[3]
    if threads:
        run(_backward_outside, -(-threads // THREADS), THREADS, x, x.shape, dy.shape, outside, center, b, c, dx)
