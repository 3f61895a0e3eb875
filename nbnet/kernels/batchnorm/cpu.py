"""Batch normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.batchnorm.cpu_max_pool import (  # noqa: F401  # the rest of this room
    apply_max_pool_parallel,
    apply_max_pool_serial,
    backward_apply_max_pool_parallel,
    backward_apply_max_pool_serial,
    backward_reduce_max_pool_parallel,
    backward_reduce_max_pool_serial,
)
from nbnet.kernels.batchnorm.cpu_smooth import (  # noqa: F401
    apply_smooth_parallel,
    apply_smooth_serial,
    backward_reduce_smooth_parallel,
    backward_reduce_smooth_serial,
)
from nbnet.kernels.batchnorm.merge import merge_moments, merge_sums
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import AHEAD, comes_late, passes_caches, prefetch, put
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_as, splat, store, where, widen, zero

# Rows that are summed in registers before the sums go back to memory, while the next ones are asked for, line after line as they lie
# in memory and not in the order of use, which the processor's own fetching ahead cannot follow: both fit the level-1 cache.
ROWS = 64

# ---------------------------------------------------------------------------------------------------- moments


@body
def _add_deviations(x, origin, start, stop, left, right, mean, m2):
    """mean += sum of x - origin, m2 += sum of its squares, over rows start to stop and channels left to right; origin is a row of x."""
    channels = x.shape[1]
    flat, late = x.reshape(-1), comes_late(x) and right - left == channels  # some of the columns are no run of memory
    for block in range(start, stop, ROWS):
        end, ahead = min(block + ROWS, stop), (block + ROWS) * channels
        for c in range(left, right, lanes(x)):
            n = right - c
            center = widen(load(flat, origin * channels + c, n))
            s, q = load_as(mean, c, n, center), load_as(m2, c, n, center)
            t, r = zero(s), zero(s)  # of every other row, since each addition waits for the last one
            for m in range(block, end - 1, 2):
                at, next_at = m * channels + c, (m + 1) * channels + c
                if late:
                    prefetch(flat, ahead)
                    prefetch(flat, ahead + lanes(x))
                    ahead += 2 * lanes(x)
                d, e = widen(load(flat, at, n)) - center, widen(load(flat, next_at, n)) - center
                s, q = s + d, q + d * d
                t, r = t + e, r + e * e
            if (end - block) % 2 == 1:
                d = widen(load(flat, (end - 1) * channels + c, n)) - center
                s, q = s + d, q + d * d
            store(mean, c, n, s + t)
            store(m2, c, n, q + r)


@body
def _add_weighted_deviations(x, weights, origin, start, stop, left, right, mean, m2, count):
    """The same with weights, whose sum goes to count."""
    step = 1 if weights.shape[1] > 1 else 0
    for m in range(start, stop):
        for c in range(left, right):
            w = np.float64(weights[m, c * step])
            d = np.float64(x[m, c]) - np.float64(x[origin, c])
            count[c] += w
            mean[c] += w * d
            m2[c] += w * d * d


@body
def moments_of_rows(x, weights, start, stop, left, right, partial):
    """Mean, sum of squares about it, and sum of weights of rows start to stop, in the rows of partial (3, C), channels left to right."""
    mean, m2, count = partial[0], partial[1], partial[2]
    for c in range(left, right):
        mean[c] = 0.0
        m2[c] = 0.0
        count[c] = stop - start if weights is None else 0.0
    if weights is None:
        _add_deviations(x, start, start, stop, left, right, mean, m2)
    else:
        _add_weighted_deviations(x, weights, start, start, stop, left, right, mean, m2, count)
    for c in range(left, right):
        d = mean[c] / count[c] if count[c] > 0 else 0.0
        m2[c] -= mean[c] * d
        mean[c] = np.float64(x[start, c]) + d


@body
def _moments(part, x, weights, partials):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    moments_of_rows(x, weights, start, stop, np.intp(0), x.shape[1], partials[part])


@serial
def moments_serial(x, weights, partials, mean, m2):
    for k in range(partials.shape[0]):
        _moments(k, x, weights, partials)
    merge_moments(partials, mean, m2)


@parallel
def moments_parallel(x, weights, partials, mean, m2):
    parallel_for(partials.shape[0], _moments, (x, weights, partials))
    merge_moments(partials, mean, m2)


# ------------------------------------------------------------------------------------------------------ apply


@body
def _apply(part, parts, x, center, scale, shift, slope, y):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    channels, factor = x.shape[1], splat(x.dtype.type(slope))
    source, target = x.reshape(-1), y.reshape(-1)
    late, past = comes_late(x), passes_caches(y, channels)
    for m in range(start, stop):
        for c in range(0, channels, lanes(x)):
            n, at = channels - c, m * channels + c
            if late:
                prefetch(source, at + AHEAD)
            z = fma(load(source, at, n) - load(center, c, n), load(scale, c, n), load(shift, c, n))
            z = where(z > zero(z), z, factor * z)
            put(target, at, n, z, past)


@serial
def apply_serial(x, center, scale, shift, slope, y):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        _apply(k, n, x, center, scale, shift, slope, y)


@parallel
def apply_parallel(x, center, scale, shift, slope, y):
    n = chunks.count(x.shape[0], x.shape[1])
    parallel_for(n, _apply, (n, x, center, scale, shift, slope, y))


# -------------------------------------------------------------------------------------------- backward_reduce


@body
def _backward_reduce(part, dy, x, center, scale, shift, slope, partials):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    partial = partials[part]
    slope = x.dtype.type(slope)
    sum_g, sum_gx = partial[0], partial[1]
    channels = x.shape[1]
    gradient, source, late = dy.reshape(-1), x.reshape(-1), comes_late(x)
    for c in range(channels):
        sum_g[c] = 0.0
        sum_gx[c] = 0.0
    rows = ROWS // 4  # of two arrays
    for block in range(start, stop, rows):
        end, ahead = min(block + rows, stop), (block + rows) * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            middle, factor, offset = load(center, c, n), load(scale, c, n), load(shift, c, n)
            s, sx = load_as(sum_g, c, n, middle), load_as(sum_gx, c, n, middle)
            for m in range(block, end):
                if late:
                    prefetch(source, ahead)
                    prefetch(gradient, ahead)
                    ahead += lanes(x)
                d = load(source, m * channels + c, n) - middle
                g = load(gradient, m * channels + c, n)
                g = widen(where(fma(d, factor, offset) > zero(d), g, splat(slope) * g))
                s = s + g
                sx = sx + g * widen(d)
            store(sum_g, c, n, s)
            store(sum_gx, c, n, sx)


@serial
def backward_reduce_serial(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        _backward_reduce(k, dy, x, center, scale, shift, slope, partials)
    merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_parallel(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    parallel_for(partials.shape[0], _backward_reduce, (dy, x, center, scale, shift, slope, partials))
    merge_sums(partials, sum_g, sum_gx)


# --------------------------------------------------------------------------------------------- backward_apply


@body
def _backward_apply(part, parts, dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    channels, factor = x.shape[1], splat(x.dtype.type(slope))
    gradient, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    late, past = comes_late(x), passes_caches(dx, channels)
    for m in range(start, stop):
        for i in range(0, channels, lanes(x)):
            n, at = channels - i, m * channels + i
            if late:
                prefetch(source, at + AHEAD)
                prefetch(gradient, at + AHEAD)
            d, g = load(source, at, n) - load(center, i, n), load(gradient, at, n)
            g = where(fma(d, load(scale, i, n), load(shift, i, n)) > zero(d), g, factor * g)
            rest = load(b, i, n) + load(c, i, n) * d
            if weights is not None:
                rest = rest * _weights_of(weights, m, i, n)
            g = load(a, i, n) * g + rest
            put(target, at, n, g, past)


@body
def _weights_of(weights, m, i, n):
    """Of n numbers from channel i on in row m."""
    if weights.shape[1] == 1:
        return splat(weights[m, 0])
    return load(weights.reshape(-1), m * weights.shape[1] + i, n)


@serial
def backward_apply_serial(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        _backward_apply(k, n, dy, x, weights, center, scale, shift, slope, a, b, c, dx)


@parallel
def backward_apply_parallel(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    parallel_for(n, _backward_apply, (n, dy, x, weights, center, scale, shift, slope, a, b, c, dx))
