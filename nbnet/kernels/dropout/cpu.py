"""Dropout on the CPU: random words for registers full of counters, four elements each, compared as they come."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.philox_vector import COUNTERS, LANES, keep_masks
from nbnet.kernels.vector import load_as, prefetch, splat_as, store, where

# Elements between what is read and what is asked for ahead. Ten rounds of Philox lie between two reads, so that without it the processor
# waits for memory first and computes then: 49 ns for 64 elements and not 22.
AHEAD = 512
WORK = 4  # elementary operations an element, for the choice of chunks


@body
def _apply(x, seed, stream, step, threshold, scale, shift, dropped, start, stop, y):
    """Elements 4*start to 4*stop, cut at the end of x."""
    factor, offset, instead = x.dtype.type(scale), x.dtype.type(shift), x.dtype.type(dropped)
    end = min(4 * stop, x.size)
    for counter in range(start, stop, COUNTERS):
        masks = keep_masks(np.uint64(counter), np.uint64(seed), np.uint64(stream), np.uint64(step), np.uint64(threshold))
        at = 4 * counter
        for kept in masks:
            prefetch(x, at + AHEAD)
            prefetch(y, at + AHEAD)
            value = load_as(x, at, end - at, kept)
            store(y, at, end - at, where(kept, value * splat_as(factor, value) + splat_as(offset, value), splat_as(instead, value)))
            at += LANES


@serial
def apply_serial(x, seed, stream, step, threshold, scale, shift, dropped, y):
    counters = (x.size + 3) // 4
    n = chunks.count(counters, 4 * WORK)
    for k in range(n):
        start, stop = chunks.bounds(k, n, counters)
        _apply(x, seed, stream, step, threshold, scale, shift, dropped, start, stop, y)


@parallel
def apply_parallel(x, seed, stream, step, threshold, scale, shift, dropped, y):
    counters = (x.size + 3) // 4
    n = chunks.count(counters, 4 * WORK)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, counters)
        _apply(x, seed, stream, step, threshold, scale, shift, dropped, start, stop, y)
