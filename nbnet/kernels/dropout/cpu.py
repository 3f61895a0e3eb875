"""Dropout on the CPU: four elements a counter, the words compared as they come."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.philox import philox

WORK = 16  # elementary operations an element, for the choice of chunks


@body
def _apply(x, seed, stream, step, threshold, scale, shift, dropped, start, stop, y):
    """Elements 4*start to 4*stop, cut at the end of x."""
    scale, shift, dropped = x.dtype.type(scale), x.dtype.type(shift), x.dtype.type(dropped)
    c2, c3 = np.uint32(stream), np.uint32(step)
    k0, k1 = np.uint32(seed & np.uint64(0xFFFFFFFF)), np.uint32(seed >> np.uint64(32))
    limit = np.uint64(threshold)
    whole = min(stop, x.size // 4)
    for i in range(start, whole):
        w0, w1, w2, w3 = philox(np.uint32(i), np.uint32(i >> 32), c2, c3, k0, k1)
        e = 4 * i
        y[e] = x[e] * scale + shift if w0 >= limit else dropped
        y[e + 1] = x[e + 1] * scale + shift if w1 >= limit else dropped
        y[e + 2] = x[e + 2] * scale + shift if w2 >= limit else dropped
        y[e + 3] = x[e + 3] * scale + shift if w3 >= limit else dropped
    if whole < stop:
        w = philox(np.uint32(whole), np.uint32(whole >> 32), c2, c3, k0, k1)
        for e in range(4 * whole, x.size):
            y[e] = x[e] * scale + shift if w[e - 4 * whole] >= limit else dropped


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
