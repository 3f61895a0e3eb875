"""Dropout on the CPU: random words for vector registers of counters, four elements each, are compared in registers."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.philox_vector import COUNTERS, LANES, at_least, random_words
from nbnet.kernels.cpu.prefetch import LINE, PREFETCH_DISTANCE, bypasses_cache, needs_prefetch, prefetch, store_or_stream
from nbnet.kernels.cpu.vector import load_as, load_whole_as, splat_as, store, where

BLOCK = 4 * COUNTERS  # elements whose words are computed at once
WORK = 4  # elementary operations per element, for the choice of chunks

# ------------------------------------------------------------------------------------------------------- apply


@body
def _kept_or_not(value, kept, factor, offset, instead):
    return where(kept, value * splat_as(factor, value) + splat_as(offset, value), splat_as(instead, value))


@body
def _apply(part, parts, x, counter, threshold, scale, shift, dropped, y):
    """A chunk of the elements, in blocks of BLOCK."""
    first, last = chunks.bounds(part, parts, (x.size + BLOCK - 1) // BLOCK)
    factor, offset, instead = x.dtype.type(scale), x.dtype.type(shift), x.dtype.type(dropped)
    prefetches, bypasses = needs_prefetch(x), bypasses_cache(y, BLOCK)
    seed, stream, step, limit = counter[0], counter[1], counter[2], np.uint64(threshold)
    before = counter[3] if counter.size > 3 else np.uint64(0)
    for at in range(first * BLOCK, last * BLOCK, BLOCK):
        if prefetches:
            for i in range(at + PREFETCH_DISTANCE, at + PREFETCH_DISTANCE + BLOCK, LINE // x.itemsize):
                prefetch(x, i)
        block = random_words(np.uint64(at // 4) + before, seed, stream, step)
        if at + BLOCK > x.size:
            for words in block:
                kept = at_least(words, limit)
                store(y, at, x.size - at, _kept_or_not(load_as(x, at, x.size - at, kept), kept, factor, offset, instead))
                at += LANES
        else:
            for words in block:
                kept = at_least(words, limit)
                store_or_stream(y, at, LANES, _kept_or_not(load_whole_as(x, at, kept), kept, factor, offset, instead), bypasses)
                at += LANES


@serial
def apply_serial(x, counter, threshold, scale, shift, dropped, y):
    n = chunks.count((x.size + BLOCK - 1) // BLOCK, WORK * BLOCK)
    for k in range(n):
        _apply(k, n, x, counter, threshold, scale, shift, dropped, y)


@parallel
def apply_parallel(x, counter, threshold, scale, shift, dropped, y):
    n = chunks.count((x.size + BLOCK - 1) // BLOCK, WORK * BLOCK)
    parallel_for(n, _apply, (n, x, counter, threshold, scale, shift, dropped, y))


# ----------------------------------------------------------------------------------------------- relu_backward


@body
def _relu_backward(part, parts, dy, y, scale, dx):
    start, stop = chunks.bounds(part, parts, dy.size)
    dy, y, dx = dy[start:stop], y[start:stop], dx[start:stop]
    zero, factor = y.dtype.type(0), y.dtype.type(scale)
    for i in range(dy.size):
        dx[i] = zero if y[i] <= 0 else dy[i] * factor


@serial
def relu_backward_serial(dy, y, scale, dx):
    n = chunks.count(dy.size, 1)
    for k in range(n):
        _relu_backward(k, n, dy, y, scale, dx)


@parallel
def relu_backward_parallel(dy, y, scale, dx):
    n = chunks.count(dy.size, 1)
    parallel_for(n, _relu_backward, (n, dy, y, scale, dx))
