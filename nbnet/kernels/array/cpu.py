"""Arithmetic on arrays on the CPU. The chunk is sliced first, so that the loop runs from 0 (see `activation.cpu`)."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for

# -------------------------------------------------------------------------------------------------------------- add


@body
def _add(part, parts, a, b, y):
    start, stop = chunks.bounds(part, parts, a.size)
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] + b[i]


@serial
def add_serial(a, b, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        _add(k, n, a, b, y)


@parallel
def add_parallel(a, b, y):
    n = chunks.count(a.size, 1)
    parallel_for(n, _add, (n, a, b, y))


# --------------------------------------------------------------------------------------------------------- multiply


@body
def _multiply(part, parts, a, b, y):
    start, stop = chunks.bounds(part, parts, a.size)
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] * b[i]


@serial
def multiply_serial(a, b, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        _multiply(k, n, a, b, y)


@parallel
def multiply_parallel(a, b, y):
    n = chunks.count(a.size, 1)
    parallel_for(n, _multiply, (n, a, b, y))


# ------------------------------------------------------------------------------------------------------------ scale


@body
def _scale(part, parts, a, factor, y):
    start, stop = chunks.bounds(part, parts, a.size)
    factor = a.dtype.type(factor)
    a, y = a[start:stop], y[start:stop]
    for i in range(y.size):
        y[i] = a[i] * factor


@serial
def scale_serial(a, factor, y):
    n = chunks.count(a.size, 1)
    for k in range(n):
        _scale(k, n, a, factor, y)


@parallel
def scale_parallel(a, factor, y):
    n = chunks.count(a.size, 1)
    parallel_for(n, _scale, (n, a, factor, y))


# ---------------------------------------------------------------------------------------------------------- squares


@body
def _squares(part, parts, a, partials):
    start, stop = chunks.bounds(part, parts, a.size)
    a = a[start:stop]
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * np.float64(a[i])
    partials[part] = total


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
        _squares(k, n, a, partials)
    total[0] = _in_order(partials)


@parallel
def squares_parallel(a, total):
    n = chunks.count(a.size, 1)
    partials = np.empty(n)
    parallel_for(n, _squares, (n, a, partials))
    total[0] = _in_order(partials)


# ------------------------------------------------------------------------------------------------------------- swap


@body
def _swap(part, parts, x, y):
    """Planes start to stop: (a, c) of y."""
    start, stop = chunks.bounds(part, parts, x.shape[0] * x.shape[2])
    for plane in range(start, stop):
        a, c = divmod(plane, y.shape[1])
        for b in range(y.shape[2]):
            for d in range(y.shape[3]):
                y[a, c, b, d] = x[a, b, c, d]


@serial
def swap_serial(x, y):
    n = chunks.count(x.shape[0] * x.shape[2], x.shape[1] * x.shape[3])
    for k in range(n):
        _swap(k, n, x, y)


@parallel
def swap_parallel(x, y):
    n = chunks.count(x.shape[0] * x.shape[2], x.shape[1] * x.shape[3])
    parallel_for(n, _swap, (n, x, y))
