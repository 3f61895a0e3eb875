"""Arithmetic on arrays on the CPU. The chunk is sliced first, so that the loop runs from 0 (see `activation.cpu`)."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial

# -------------------------------------------------------------------------------------------------------------- add


@body
def _add(a, b, start, stop, y):
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] + b[i]


@serial
def add_serial(a, b, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        start, stop = chunks.bounds(k, n, a.size)
        _add(a, b, start, stop, y)


@parallel
def add_parallel(a, b, y):
    n = chunks.count(a.size, 1)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, a.size)
        _add(a, b, start, stop, y)


# --------------------------------------------------------------------------------------------------------- multiply


@body
def _multiply(a, b, start, stop, y):
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] * b[i]


@serial
def multiply_serial(a, b, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        start, stop = chunks.bounds(k, n, a.size)
        _multiply(a, b, start, stop, y)


@parallel
def multiply_parallel(a, b, y):
    n = chunks.count(a.size, 1)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, a.size)
        _multiply(a, b, start, stop, y)


# ------------------------------------------------------------------------------------------------------------ scale


@body
def _scale(a, factor, start, stop, y):
    factor = a.dtype.type(factor)
    a, y = a[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] * factor


@serial
def scale_serial(a, factor, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        start, stop = chunks.bounds(k, n, a.size)
        _scale(a, factor, start, stop, y)


@parallel
def scale_parallel(a, factor, y):
    n = chunks.count(a.size, 1)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, a.size)
        _scale(a, factor, start, stop, y)


# ---------------------------------------------------------------------------------------------------------- squares


@body
def _squares(a, start, stop):
    a = a[start:stop]
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(a[i])
    return total


@body
def _in_order(partials):
    total = 0.0
    for k in range(partials.size):
        total += partials[k]
    return total


@serial
def squares_serial(a, total):
    n = chunks.count(a.size, 1)
    partials = np.empty(n)
    for k in range(n):
        start, stop = chunks.bounds(k, n, a.size)
        partials[k] = _squares(a, start, stop)
    total[0] = _in_order(partials)


@parallel
def squares_parallel(a, total):
    n = chunks.count(a.size, 1)
    partials = np.empty(n)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, a.size)
        partials[k] = _squares(a, start, stop)
    total[0] = _in_order(partials)


# ------------------------------------------------------------------------------------------------------------- swap


@body
def _swap(x, start, stop, y):
    """Planes start to stop: (a, c) of y."""
    for plane in range(start, stop):
        a, c = divmod(plane, y.shape[1])
        for b in range(y.shape[2]):
            for d in range(y.shape[3]):
                y[a, c, b, d] = x[a, b, c, d]


@serial
def swap_serial(x, y):
    n = chunks.count(x.shape[0] * x.shape[2], x.shape[1] * x.shape[3])
    for k in range(n):
        start, stop = chunks.bounds(k, n, x.shape[0] * x.shape[2])
        _swap(x, start, stop, y)


@parallel
def swap_parallel(x, y):
    n = chunks.count(x.shape[0] * x.shape[2], x.shape[1] * x.shape[3])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, x.shape[0] * x.shape[2])
        _swap(x, start, stop, y)
