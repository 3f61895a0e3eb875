"""Batch normalisation and a smooth activation in one pass, on the CPU."""

from nbnet.kernels import chunks
from nbnet.kernels.batchnorm import TANH
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import bypasses_cache, needs_prefetch, prefetch, store_or_stream
from nbnet.kernels.cpu.reductions import merge_sums
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import EXP, fma, sigmoid_of_run, tanh_of_run
from nbnet.kernels.cpu.vector import load, load_as, splat_as, store, widen

NUMBERS = 2048  # normalised before they are activated: they stay in the level-1 cache
ROWS = 16  # summed in registers before the sums go back to memory, while the next ones are prefetched

# ------------------------------------------------------------------------------------------------------ apply


@body
def _apply_smooth(part, parts, x, center, scale, shift, activation, y):
    """Normalise some rows, then activate them as one run of numbers, so that vectors are full even with few channels."""
    start, stop = chunks.bounds(part, parts, x.shape[0])
    channels, source, target = x.shape[1], x.reshape(-1), y.reshape(-1)
    rows = max(1, NUMBERS // channels)
    for block in range(start, stop, rows):
        end = min(block + rows, stop)
        for m in range(block, end):
            for c in range(0, channels, lanes(x)):
                n, at = channels - c, m * channels + c
                store(target, at, n, fma(load(source, at, n) - load(center, c, n), load(scale, c, n), load(shift, c, n)))
        if activation == TANH:
            tanh_of_run(target, block * channels, end * channels, target)
        else:
            sigmoid_of_run(target, block * channels, end * channels, target)


@serial
def apply_smooth_serial(x, center, scale, shift, activation, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    for k in range(n):
        _apply_smooth(k, n, x, center, scale, shift, activation, y)


@parallel
def apply_smooth_parallel(x, center, scale, shift, activation, y):
    n = chunks.count(x.shape[0], EXP * x.shape[1])
    parallel_for(n, _apply_smooth, (n, x, center, scale, shift, activation, y))


# -------------------------------------------------------------------------------------------- backward_reduce


@body
def _backward_reduce_smooth(part, dy, y, x, center, activation, partials, g):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    partial = partials[part]
    channels, sum_g, sum_gx = x.shape[1], partial[0], partial[1]
    gradient, activated, source, target, bypasses = dy.reshape(-1), y.reshape(-1), x.reshape(-1), g.reshape(-1), bypasses_cache(g, channels)
    prefetches = needs_prefetch(x)
    for c in range(channels):
        sum_g[c] = 0.0
        sum_gx[c] = 0.0
    for block in range(start, stop, ROWS):
        end, ahead = min(block + ROWS, stop), (block + ROWS) * channels
        for c in range(0, channels, lanes(x)):
            n = channels - c
            middle = load(center, c, n)
            s, sx = load_as(sum_g, c, n, middle), load_as(sum_gx, c, n, middle)
            for m in range(block, end):
                at = m * channels + c
                if prefetches:
                    prefetch(gradient, ahead)
                    prefetch(activated, ahead)
                    prefetch(source, ahead)
                    ahead += lanes(x)
                v = load(activated, at, n)
                slope = splat_as(1.0, v) - v * v if activation == TANH else v * (splat_as(1.0, v) - v)
                through = load(gradient, at, n) * slope
                store_or_stream(target, at, n, through, bypasses)
                s = s + widen(through)
                sx = sx + widen(through) * widen(load(source, at, n) - middle)
            store(sum_g, c, n, s)
            store(sum_gx, c, n, sx)


@serial
def backward_reduce_smooth_serial(dy, y, x, center, activation, partials, g, sum_g, sum_gx):
    for k in range(partials.shape[0]):
        _backward_reduce_smooth(k, dy, y, x, center, activation, partials, g)
    merge_sums(partials, sum_g, sum_gx)


@parallel
def backward_reduce_smooth_parallel(dy, y, x, center, activation, partials, g, sum_g, sum_gx):
    parallel_for(partials.shape[0], _backward_reduce_smooth, (dy, y, x, center, activation, partials, g))
    merge_sums(partials, sum_g, sum_gx)
