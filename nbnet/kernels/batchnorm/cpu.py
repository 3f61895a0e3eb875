"""Batch normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial

# ---------------------------------------------------------------------------------------------------- moments


@body
def _moments(x, weights, start, stop, partial):
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
def _merge_moments(partials, mean, var):
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
        _moments(x, weights, start, stop, partials[k])
    _merge_moments(partials, mean, var)


@parallel
def moments_parallel(x, weights, partials, mean, var):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _moments(x, weights, start, stop, partials[k])
    _merge_moments(partials, mean, var)


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
