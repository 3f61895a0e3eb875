"""Batch normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.simd import lanes
from nbnet.kernels.vector import accumulate, load, prefetch, splat, store, where, zero

# Numbers between what is read and what is asked for ahead, where two rows of an image are read in turns. Without it the
# processor finds no stream to follow, and an image larger than the caches takes more than twice the time (2.3 ms against 0.9).
AHEAD = 512

# ---------------------------------------------------------------------------------------------------- moments


@body
def moments_of_rows(x, weights, start, stop, partial):
    """Mean, sum of squares about it, and sum of weights of rows start to stop, in the rows of partial (3, C)."""
    mean, m2, count = partial[0], partial[1], partial[2]
    origin = x[start]
    channels = x.shape[1]
    for c in range(channels):
        mean[c] = 0.0
        m2[c] = 0.0
        count[c] = stop - start if weights is None else 0.0
    for m in range(start, stop):
        if weights is None:
            for c in range(channels):
                d = np.float64(x[m, c]) - np.float64(origin[c])
                mean[c] += d
                m2[c] += d * d
        else:
            step = 1 if weights.shape[1] > 1 else 0
            for c in range(channels):
                w = np.float64(weights[m, c * step])
                d = np.float64(x[m, c]) - np.float64(origin[c])
                count[c] += w
                mean[c] += w * d
                m2[c] += w * d * d
    for c in range(channels):
        d = mean[c] / count[c] if count[c] > 0 else 0.0
        m2[c] -= mean[c] * d
        mean[c] = np.float64(origin[c]) + d


@body
def merge_moments(partials, mean, var):
    """Mean and biased variance of all rows, from those of each chunk."""
    for c in range(mean.shape[0]):
        total, mu, m2 = 0.0, 0.0, 0.0
        for k in range(partials.shape[0]):
            n = partials[k, 2, c]
            if n > 0:
                delta = partials[k, 0, c] - mu
                m2 += partials[k, 1, c] + delta * delta * total * n / (total + n)
                total += n
                mu += delta * n / total
        mean[c] = mu
        var[c] = max(m2 / total, 0.0)


@serial
def moments_serial(x, weights, partials, mean, var):
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        moments_of_rows(x, weights, start, stop, partials[k])
    merge_moments(partials, mean, var)


@parallel
def moments_parallel(x, weights, partials, mean, var):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        moments_of_rows(x, weights, start, stop, partials[k])
    merge_moments(partials, mean, var)


# ------------------------------------------------------------------------------------------------------ apply


@body
def _apply(x, center, scale, shift, slope, start, stop, y):
    slope = x.dtype.type(slope)
    for m in range(start, stop):
        for c in range(x.shape[1]):
            z = (x[m, c] - center[c]) * scale[c] + shift[c]
            y[m, c] = z if z > 0 else slope * z


@serial
def apply_serial(x, center, scale, shift, slope, y):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _apply(x, center, scale, shift, slope, start, stop, y)


@parallel
def apply_parallel(x, center, scale, shift, slope, y):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _apply(x, center, scale, shift, slope, start, stop, y)


# -------------------------------------------------------------------------------------------- backward_reduce


@body
def _backward_reduce(dy, x, center, scale, shift, slope, start, stop, partial):
    slope = x.dtype.type(slope)
    sum_g, sum_gx = partial[0], partial[1]
    channels = x.shape[1]
    for c in range(channels):
        sum_g[c] = 0.0
        sum_gx[c] = 0.0
    for m in range(start, stop):
        for c in range(channels):
            d = x[m, c] - center[c]
            z = d * scale[c] + shift[c]
            g = dy[m, c] if z > 0 else slope * dy[m, c]
            sum_g[c] += np.float64(g)
            sum_gx[c] += np.float64(g) * np.float64(d)


@body
def _merge_sums(partials, sum_g, sum_gx):
    for c in range(sum_g.shape[0]):
        g, gx = 0.0, 0.0
        for k in range(partials.shape[0]):
            g += partials[k, 0, c]
            gx += partials[k, 1, c]
        sum_g[c] = g
        sum_gx[c] = gx


@serial
def backward_reduce_serial(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_reduce(dy, x, center, scale, shift, slope, start, stop, partials[k])
    _merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_parallel(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward_reduce(dy, x, center, scale, shift, slope, start, stop, partials[k])
    _merge_sums(partials, sum_g, sum_gx)


# --------------------------------------------------------------------------------------------- backward_apply


@body
def _backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, start, stop, dx):
    slope = x.dtype.type(slope)
    step = 0 if weights is None or weights.shape[1] == 1 else 1
    for m in range(start, stop):
        for i in range(x.shape[1]):
            w = x.dtype.type(1) if weights is None else weights[m, i * step]
            d = x[m, i] - center[i]
            z = d * scale[i] + shift[i]
            g = dy[m, i] if z > 0 else slope * dy[m, i]
            dx[m, i] = a[i] * g + w * (b[i] + c[i] * d)


@serial
def backward_apply_serial(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, start, stop, dx)


@parallel
def backward_apply_parallel(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, x.shape[0])
        _backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, start, stop, dx)


# --------------------------------------------------------------------------------------------- apply_max_pool
#
# What the three kernels below save is memory traffic: the activation, four times as large as what the pool leaves of it, is
# never written or read. The loops walk over windows, and over the channels of a window in vectors.


@body
def _normalized(x, at, center, scale, shift, c, count):
    """x - center, and the input of the activation."""
    d = load(x, at, count) - load(center, c, count)
    return d, d * load(scale, c, count) + load(shift, c, count)


@body
def _activated(z, slope):
    return where(z > zero(z), z, splat(slope) * z)


@body
def _first_wins(a, b):
    """Where a is the maximum of two: NaN counts as the largest, and of equals the first wins."""
    return (a >= b) | (a != a)


@body
def _window(x, at, width, center, scale, shift, slope, c, count):
    """x - center, in the order of rows, and which of a row's two pixels and which row wins, of a window whose first number is at `at`."""
    channels = center.size
    for pixel in (at, at + channels, at + width * channels, at + (width + 1) * channels):
        prefetch(x, pixel + AHEAD)
    d0, z0 = _normalized(x, at, center, scale, shift, c, count)
    d1, z1 = _normalized(x, at + channels, center, scale, shift, c, count)
    d2, z2 = _normalized(x, at + width * channels, center, scale, shift, c, count)
    d3, z3 = _normalized(x, at + (width + 1) * channels, center, scale, shift, c, count)
    y0, y1, y2, y3 = _activated(z0, slope), _activated(z1, slope), _activated(z2, slope), _activated(z3, slope)
    upper, lower = _first_wins(y0, y1), _first_wins(y2, y3)
    row = _first_wins(where(upper, y0, y1), where(lower, y2, y3))
    z = where(row, where(upper, z0, z1), where(lower, z2, z3))
    return d0, d1, d2, d3, upper, lower, row, z


@body
def _apply_max_pool(x, center, scale, shift, slope, start, stop, y):
    """Output rows start to stop, counted over all images."""
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
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, 2 * x.shape[2] * x.shape[3])
    for k in range(n):
        start, stop = chunks.bounds(k, n, rows)
        _apply_max_pool(x, center, scale, shift, slope, start, stop, y)


@parallel
def apply_max_pool_parallel(x, center, scale, shift, slope, y):
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, 2 * x.shape[2] * x.shape[3])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, rows)
        _apply_max_pool(x, center, scale, shift, slope, start, stop, y)


# ----------------------------------------------------------------------------------- backward_reduce_max_pool


@body
def _backward_reduce_max_pool(dy, x, center, scale, shift, slope, start, stop, partial):
    """Output rows start to stop. Only the winners of the windows have a gradient."""
    _, height, width, channels = x.shape
    slope = x.dtype.type(slope)
    one = x.dtype.type(1)
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
                accumulate(sum_g, c, count, g, splat(one))
                accumulate(sum_gx, c, count, g, where(first, where(upper, d0, d1), where(lower, d2, d3)))


@serial
def backward_reduce_max_pool_serial(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    rows = dy.shape[0] * dy.shape[1]
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], rows)
        _backward_reduce_max_pool(dy, x, center, scale, shift, slope, start, stop, partials[k])
    _merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_max_pool_parallel(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    rows = dy.shape[0] * dy.shape[1]
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], rows)
        _backward_reduce_max_pool(dy, x, center, scale, shift, slope, start, stop, partials[k])
    _merge_sums(partials, sum_g, sum_gx)


# ------------------------------------------------------------------------------------ backward_apply_max_pool


@body
def _backward_outside(x, center, b, c, start, stop, dx):
    """Numbers start to stop, from the first channel of a pixel on, that belong to no window."""
    channels = center.size
    for pixel in range(start, stop, channels):
        for i in range(0, channels, lanes(x)):
            count = channels - i
            d = load(x, pixel + i, count) - load(center, i, count)
            store(dx, pixel + i, count, load(b, i, count) + load(c, i, count) * d)


@body
def _backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, start, stop, dx):
    """Pairs of input rows start to stop, counted over all images; the last of an image may be a single row."""
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
        for row in range(first, first + 2 * width * channels, width * channels):
            _backward_outside(source, center, b, c, row + 2 * dy.shape[2] * channels, row + width * channels, target)


@serial
def backward_apply_max_pool_serial(dy, x, center, scale, shift, slope, a, b, c, dx):
    pairs = x.shape[0] * ((x.shape[1] + 1) // 2)
    n = chunks.count(pairs, 2 * x.shape[2] * x.shape[3])
    for k in range(n):
        start, stop = chunks.bounds(k, n, pairs)
        _backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, start, stop, dx)


@parallel
def backward_apply_max_pool_parallel(dy, x, center, scale, shift, slope, a, b, c, dx):
    pairs = x.shape[0] * ((x.shape[1] + 1) // 2)
    n = chunks.count(pairs, 2 * x.shape[2] * x.shape[3])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, pairs)
        _backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, start, stop, dx)
