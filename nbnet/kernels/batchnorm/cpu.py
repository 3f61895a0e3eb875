"""Batch normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.activations import SMOOTH, TABLE
from nbnet.kernels.batchnorm.cpu_max_pool import (  # noqa: F401  # kernels of this module
    apply_max_pool_parallel,
    apply_max_pool_serial,
    backward_apply_max_pool_parallel,
    backward_apply_max_pool_serial,
    backward_reduce_max_pool_parallel,
    backward_reduce_max_pool_serial,
)
from nbnet.kernels.batchnorm.cpu_smooth import TEMPLATES, make
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import PREFETCH_DISTANCE, bypasses_cache, needs_prefetch, prefetch, store_or_stream
from nbnet.kernels.cpu.reductions import merge_moments, merge_sums, moments_of_rows, unless_masked, weights_of
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_as, splat, store, where, widen, zero
from nbnet.kernels.tables import made_from_table

ROWS = 16  # summed in registers before the sums go back to memory, while the next ones are prefetched

__getattr__, __dir__ = made_from_table(globals(), TEMPLATES, make, [TABLE[name] for name in SMOOTH], ("_serial", "_parallel"))

# ---------------------------------------------------------------------------------------------------- moments


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
    prefetches, bypasses = needs_prefetch(x), bypasses_cache(y, channels)
    for m in range(start, stop):
        for c in range(0, channels, lanes(x)):
            n, at = channels - c, m * channels + c
            if prefetches:
                prefetch(source, at + PREFETCH_DISTANCE)
            z = fma(load(source, at, n) - load(center, c, n), load(scale, c, n), load(shift, c, n))
            z = where(z > zero(z), z, factor * z)
            store_or_stream(target, at, n, z, bypasses)


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
def _backward_reduce(part, dy, x, weights, center, scale, shift, slope, partials):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    partial = partials[part]
    slope = x.dtype.type(slope)
    sum_g, sum_gx = partial[0], partial[1]
    channels = x.shape[1]
    gradient, source, prefetches = dy.reshape(-1), x.reshape(-1), needs_prefetch(x)
    for c in range(channels):
        sum_g[c] = 0.0
        sum_gx[c] = 0.0
    for block in range(start, stop, ROWS):
        end, ahead = min(block + ROWS, stop), (block + ROWS) * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            middle, factor, offset = load(center, c, n), load(scale, c, n), load(shift, c, n)
            s, sx = load_as(sum_g, c, n, middle), load_as(sum_gx, c, n, middle)
            for m in range(block, end):
                if prefetches:
                    prefetch(source, ahead)
                    prefetch(gradient, ahead)
                    ahead += lanes(x)
                d = load(source, m * channels + c, n) - middle
                g = load(gradient, m * channels + c, n)
                g = widen(where(fma(d, factor, offset) > zero(d), g, splat(slope) * g))
                gd = g * widen(d)
                if weights is not None:
                    w = weights_of(weights, m, c, n)
                    g, gd = unless_masked(w, g), unless_masked(w, gd)
                s = s + g
                sx = sx + gd
            store(sum_g, c, n, s)
            store(sum_gx, c, n, sx)


@serial
def backward_reduce_serial(dy, x, weights, center, scale, shift, slope, partials, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        _backward_reduce(k, dy, x, weights, center, scale, shift, slope, partials)
    merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_parallel(dy, x, weights, center, scale, shift, slope, partials, sum_g, sum_gx):
    parallel_for(partials.shape[0], _backward_reduce, (dy, x, weights, center, scale, shift, slope, partials))
    merge_sums(partials, sum_g, sum_gx)


# --------------------------------------------------------------------------------------------- backward_apply


@body
def _backward_apply(part, parts, dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    channels, factor = x.shape[1], splat(x.dtype.type(slope))
    gradient, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    prefetches, bypasses = needs_prefetch(x), bypasses_cache(dx, channels)
    for m in range(start, stop):
        for i in range(0, channels, lanes(x)):
            n, at = channels - i, m * channels + i
            if prefetches:
                prefetch(source, at + PREFETCH_DISTANCE)
                prefetch(gradient, at + PREFETCH_DISTANCE)
            d, g = load(source, at, n) - load(center, i, n), load(gradient, at, n)
            g = where(fma(d, load(scale, i, n), load(shift, i, n)) > zero(d), g, factor * g)
            rest = load(b, i, n) + load(c, i, n) * d
            if weights is not None:
                w = weights_of(weights, m, i, n)
                g, rest = unless_masked(w, g), unless_masked(w, w * rest)
            g = load(a, i, n) * g + rest
            store_or_stream(target, at, n, g, bypasses)


@serial
def backward_apply_serial(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    for k in range(n):
        _backward_apply(k, n, dy, x, weights, center, scale, shift, slope, a, b, c, dx)


@parallel
def backward_apply_parallel(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    n = chunks.count(x.shape[0], x.shape[1])
    parallel_for(n, _backward_apply, (n, dy, x, weights, center, scale, shift, slope, a, b, c, dx))
