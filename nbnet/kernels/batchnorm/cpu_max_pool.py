"""Batch normalisation, activation and a max-pool of 2 x 2 in one pass on the CPU.

These kernels save memory traffic: the activation, four times as large as the pool's output, is never written or read. The loops run
over windows, and over the channels of a window in vectors.
"""

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import merge_sums
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_as, splat, store, where, widen, zero
from nbnet.kernels.cpu.windows import fetch_window, first_wins

# --------------------------------------------------------------------------------------------- apply_max_pool


@body
def _normalized(x, at, center, scale, shift, c, count):
    """x - center, and the input of the activation, rounded once: equal pixels must stay equal, whatever code surrounds this."""
    d = load(x, at, count) - load(center, c, count)
    return d, fma(d, load(scale, c, count), load(shift, c, count))


@body
def _activated(z, slope):
    return where(z > zero(z), z, splat(slope) * z)


@body
def _window(x, at, width, center, scale, shift, slope, c, count):
    """For the window whose first number is at `at`: x - center in row-major order, the winner of each row, the winning row, its z."""
    channels = center.size
    fetch_window(x, at, width, channels)
    d0, z0 = _normalized(x, at, center, scale, shift, c, count)
    d1, z1 = _normalized(x, at + channels, center, scale, shift, c, count)
    d2, z2 = _normalized(x, at + width * channels, center, scale, shift, c, count)
    d3, z3 = _normalized(x, at + (width + 1) * channels, center, scale, shift, c, count)
    y0, y1, y2, y3 = _activated(z0, slope), _activated(z1, slope), _activated(z2, slope), _activated(z3, slope)
    upper, lower = first_wins(y0, y1), first_wins(y2, y3)
    row = first_wins(where(upper, y0, y1), where(lower, y2, y3))
    z = where(row, where(upper, z0, z1), where(lower, z2, z3))
    return d0, d1, d2, d3, upper, lower, row, z


@body
def _apply_max_pool(part, parts, x, center, scale, shift, slope, y):
    """Output rows start to stop, counted over all images."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    _, height, width, channels = x.shape
    slope = x.dtype.type(slope)
    source, target = x.reshape(-1), y.reshape(-1)
    for row in range(start, stop):
        image, pair = divmod(row, y.shape[1])
        for column in range(y.shape[2]):
            at = ((image * height + 2 * pair) * width + 2 * column) * channels
            to = (row * y.shape[2] + column) * channels
            for c in range(0, channels, lanes(x)):
                count = channels - c
                _, _, _, _, _, _, _, z = _window(source, at + c, width, center, scale, shift, slope, c, count)
                store(target, to + c, count, _activated(z, slope))


@serial
def apply_max_pool_serial(x, center, scale, shift, slope, y):
    n = chunks.count(y.shape[0] * y.shape[1], 2 * x.shape[2] * x.shape[3])
    for k in range(n):
        _apply_max_pool(k, n, x, center, scale, shift, slope, y)


@parallel
def apply_max_pool_parallel(x, center, scale, shift, slope, y):
    n = chunks.count(y.shape[0] * y.shape[1], 2 * x.shape[2] * x.shape[3])
    parallel_for(n, _apply_max_pool, (n, x, center, scale, shift, slope, y))


# ----------------------------------------------------------------------------------- backward_reduce_max_pool


@body
def _backward_reduce_max_pool(part, dy, x, center, scale, shift, slope, partials):
    """Output rows start to stop. Only the winner of a window has a gradient."""
    start, stop = chunks.bounds(part, partials.shape[0], dy.shape[0] * dy.shape[1])
    partial = partials[part]
    _, height, width, channels = x.shape
    slope = x.dtype.type(slope)
    gradient, source = dy.reshape(-1), x.reshape(-1)
    sum_g, sum_gx = partial[0], partial[1]
    for c in range(channels):
        sum_g[c] = 0.0
        sum_gx[c] = 0.0
    for row in range(start, stop):
        image, pair = divmod(row, dy.shape[1])
        for column in range(dy.shape[2]):
            at = ((image * height + 2 * pair) * width + 2 * column) * channels
            to = (row * dy.shape[2] + column) * channels
            for c in range(0, channels, lanes(x)):
                count = channels - c
                d0, d1, d2, d3, upper, lower, first, z = _window(source, at + c, width, center, scale, shift, slope, c, count)
                g = load(gradient, to + c, count)
                g = where(z > zero(z), g, splat(slope) * g)
                d = widen(where(first, where(upper, d0, d1), where(lower, d2, d3)))
                store(sum_g, c, count, load_as(sum_g, c, count, d) + widen(g))
                store(sum_gx, c, count, load_as(sum_gx, c, count, d) + widen(g) * d)


@serial
def backward_reduce_max_pool_serial(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        _backward_reduce_max_pool(k, dy, x, center, scale, shift, slope, partials)
    merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_max_pool_parallel(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    parallel_for(partials.shape[0], _backward_reduce_max_pool, (dy, x, center, scale, shift, slope, partials))
    merge_sums(partials, sum_g, sum_gx)


# ------------------------------------------------------------------------------------ backward_apply_max_pool


@body
def _backward_outside(x, center, b, c, start, stop, dx):
    """dx of numbers start to stop, whole pixels that belong to no window."""
    channels = center.size
    for pixel in range(start, stop, channels):
        for i in range(0, channels, lanes(x)):
            count = channels - i
            d = load(x, pixel + i, count) - load(center, i, count)
            store(dx, pixel + i, count, load(b, i, count) + load(c, i, count) * d)


@body
def _backward_apply_max_pool(part, parts, dy, x, center, scale, shift, slope, a, b, c, dx):
    """Pairs of input rows start to stop, counted over all images; the last pair of an image may be a single row."""
    start, stop = chunks.bounds(part, parts, x.shape[0] * ((x.shape[1] + 1) // 2))
    _, height, width, channels = x.shape
    slope = x.dtype.type(slope)
    gradient, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    for unit in range(start, stop):
        image, pair = divmod(unit, (height + 1) // 2)
        first = (image * height + 2 * pair) * width * channels
        if pair >= dy.shape[1]:
            _backward_outside(source, center, b, c, first, first + width * channels, target)
            continue
        for column in range(dy.shape[2]):
            at = first + 2 * column * channels
            to = ((image * dy.shape[1] + pair) * dy.shape[2] + column) * channels
            for i in range(0, channels, lanes(x)):
                count = channels - i
                d0, d1, d2, d3, upper, lower, row, z = _window(source, at + i, width, center, scale, shift, slope, i, count)
                g = load(gradient, to + i, count)
                g = load(a, i, count) * where(z > zero(z), g, splat(slope) * g)
                in_upper, in_lower = where(row, g, zero(g)), where(row, zero(g), g)
                base, factor = load(b, i, count), load(c, i, count)
                below = at + width * channels
                store(target, at + i, count, where(upper, in_upper, zero(g)) + (base + factor * d0))
                store(target, at + channels + i, count, where(upper, zero(g), in_upper) + (base + factor * d1))
                store(target, below + i, count, where(lower, in_lower, zero(g)) + (base + factor * d2))
                store(target, below + channels + i, count, where(lower, zero(g), in_lower) + (base + factor * d3))
        if width > 2 * dy.shape[2]:
            for row in range(first, first + 2 * width * channels, width * channels):
                _backward_outside(source, center, b, c, row + 2 * dy.shape[2] * channels, row + width * channels, target)


@serial
def backward_apply_max_pool_serial(dy, x, center, scale, shift, slope, a, b, c, dx):
    pairs = x.shape[0] * ((x.shape[1] + 1) // 2)
    n = chunks.count(pairs, 2 * x.shape[2] * x.shape[3])
    for k in range(n):
        _backward_apply_max_pool(k, n, dy, x, center, scale, shift, slope, a, b, c, dx)


@parallel
def backward_apply_max_pool_parallel(dy, x, center, scale, shift, slope, a, b, c, dx):
    pairs = x.shape[0] * ((x.shape[1] + 1) // 2)
    n = chunks.count(pairs, 2 * x.shape[2] * x.shape[3])
    parallel_for(n, _backward_apply_max_pool, (n, dy, x, center, scale, shift, slope, a, b, c, dx))
