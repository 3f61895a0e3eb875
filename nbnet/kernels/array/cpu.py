"""Arithmetic on arrays on the CPU. The chunk is sliced first, so that the loop runs from 0 (see `activation.cpu`)."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
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


# ----------------------------------------------------------------------------------------------------- copy_columns


@body
def _copy_columns(part, parts, x, first, y, at, count):
    start, stop = chunks.bounds(part, parts, x.shape[0])
    first, at = max(first, 0), max(at, 0)  # LLVM then knows that no index is negative: vector code, ten times as fast
    for row in range(start, stop):
        for c in range(count):
            y[row, at + c] = x[row, first + c]


@serial
def copy_columns_serial(x, first, y, at, count):
    n = chunks.count(x.shape[0], count)
    for k in range(n):
        _copy_columns(k, n, x, first, y, at, count)


@parallel
def copy_columns_parallel(x, first, y, at, count):
    n = chunks.count(x.shape[0], count)
    parallel_for(n, _copy_columns, (n, x, first, y, at, count))


# ------------------------------------------------------------------------------------- multiply_rows, multiply_sum


@body
def _multiply_rows(part, parts, a, b, y):
    """Rows start to stop: (n, m) of y."""
    start, stop = chunks.bounds(part, parts, a.shape[0] * a.shape[1])
    for row in range(start, stop):
        n, m = divmod(row, a.shape[1])
        for c in range(a.shape[2]):
            y[n, m, c] = a[n, m, c] * b[n, c]


@serial
def multiply_rows_serial(a, b, y):
    n = chunks.count(a.shape[0] * a.shape[1], a.shape[2])
    for k in range(n):
        _multiply_rows(k, n, a, b, y)


@parallel
def multiply_rows_parallel(a, b, y):
    n = chunks.count(a.shape[0] * a.shape[1], a.shape[2])
    parallel_for(n, _multiply_rows, (n, a, b, y))


@precise
def _product(a, b):
    return np.float64(a) * np.float64(b)


@precise
def _multiply_sum(part, parts, a, b, y):
    """Examples start to stop. Four rows at a time, added in order: fewer passes over the sums."""
    start, stop = chunks.bounds(part, parts, a.shape[0])
    rows, channels = a.shape[1], a.shape[2]
    sums = np.empty(channels)
    for n in range(start, stop):
        for c in range(channels):
            sums[c] = 0.0
        m = 0
        while m + 4 <= rows:
            for c in range(channels):
                total = sums[c] + _product(a[n, m, c], b[n, m, c])
                total += _product(a[n, m + 1, c], b[n, m + 1, c])
                total += _product(a[n, m + 2, c], b[n, m + 2, c])
                sums[c] = total + _product(a[n, m + 3, c], b[n, m + 3, c])
            m += 4
        while m < rows:
            for c in range(channels):
                sums[c] += _product(a[n, m, c], b[n, m, c])
            m += 1
        for c in range(channels):
            y[n, c] = sums[c]


@serial
def multiply_sum_serial(a, b, y):
    n = chunks.count(a.shape[0], a.shape[1] * a.shape[2])
    for k in range(n):
        _multiply_sum(k, n, a, b, y)


@parallel
def multiply_sum_parallel(a, b, y):
    n = chunks.count(a.shape[0], a.shape[1] * a.shape[2])
    parallel_for(n, _multiply_sum, (n, a, b, y))
