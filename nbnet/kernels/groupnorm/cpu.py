"""Group normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks.

Rows of one point (layer normalisation) are processed group by group. Rows of several points (images) are processed point by point, with
sums and statistics per channel, so that loops are long even for narrow groups: 1.6 ms, where loops over groups of 2 channels took 10 ms
(64 x 1024 x 64 float32, serial).

Innermost loops run over range(width) and index [first + c]. In range(first, first + width), Numba cannot prove that c is not negative,
and its check for that prevents vector code. Bodies loop over the rows of a chunk: a call per row counts references to its arrays, which
takes 150 ns where a row of 10 channels takes 25 ns.

Formulas are `precise` functions, and sums go through _total. LLVM optimises a linked body once more in each driver, and with fastmath
it may round differently each time. A driver that was just compiled and one from the cache would then differ in the last bit, and so
would serial and parallel.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import merge_sums
from nbnet.kernels.groupnorm import TINY


@precise
def _deviation(x, center):
    return np.float64(x) - center


@precise
def _xhat(x, center, scale):
    return _deviation(x, center) * scale


@precise
def _y(x, center, scale, gamma, beta):
    return _xhat(x, center, scale) * np.float64(gamma) + np.float64(beta)


@precise
def _product(a, b):
    return np.float64(a) * np.float64(b)


@precise
def _dx(dy, x, gamma, center, scale, mean_g, mean_gx):
    return (_product(dy, gamma) - mean_g - _xhat(x, center, scale) * mean_gx) * scale


@precise
def _square(x, center):
    return _deviation(x, center) * _deviation(x, center)


@precise
def _mean(origin, total, size):
    return origin + total / size


@precise
def _inverse(m2, size, eps):
    return 1.0 / np.sqrt(max(m2 / size + eps, TINY))


@body
def _vector_total(values, first, count):
    total = 0.0
    for c in range(count):
        total += values[first + c]
    return total


@precise
def _total(values, first, count):
    """The sum of values[first : first + count]: whole blocks of 64 as vector code in LLVM's order, then the rest in the order written, so
    that LLVM has no rest to sum in varying orders."""
    whole = count - count % 64
    i, even, odd = whole, 0.0, 0.0
    while i + 2 <= count:
        even += values[first + i]
        odd += values[first + i + 1]
        i += 2
    if i < count:
        even += values[first + i]
    return _vector_total(values, first, whole) + (even + odd)


@body
def _spread(values, n, channels):
    """Give each channel the value of its group in row n."""
    width = channels.shape[0] // values.shape[1]
    for g in range(values.shape[1]):
        first = g * width
        value = values[n, g]
        for c in range(width):
            channels[first + c] = value


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward_vectors(x, groups, gamma, beta, eps, centered, start, stop, terms, mean, inv_std, y):
    """Rows of one point."""
    width = x.shape[2] // groups
    for n in range(start, stop):
        for g in range(groups):
            first = g * width
            center = 0.0
            if centered:
                origin = np.float64(x[n, 0, first])
                for c in range(width):
                    terms[c] = _deviation(x[n, 0, first + c], origin)
                center = _mean(origin, _total(terms, 0, width), width)
            for c in range(width):
                terms[c] = _square(x[n, 0, first + c], center)
            scale = _inverse(_total(terms, 0, width), width, eps)
            for c in range(width):
                y[n, 0, first + c] = _y(x[n, 0, first + c], center, scale, gamma[first + c], beta[first + c])
            mean[n, g] = center
            inv_std[n, g] = scale


@body
def _forward_images(x, groups, gamma, beta, eps, centered, start, stop, center, scale, sums, mean, inv_std, y):
    """Rows of any number of points."""
    points, channels = x.shape[1], x.shape[2]
    width = channels // groups
    for n in range(start, stop):
        for g in range(groups):
            mean[n, g] = np.float64(x[n, 0, g * width]) if centered else 0.0
        _spread(mean, n, center)
        if centered:
            for c in range(channels):
                sums[c] = 0.0
            for p in range(points):
                for c in range(channels):
                    sums[c] += _deviation(x[n, p, c], center[c])
            for g in range(groups):
                mean[n, g] = _mean(mean[n, g], _total(sums, g * width, width), points * width)
            _spread(mean, n, center)
        for c in range(channels):
            sums[c] = 0.0
        for p in range(points):
            for c in range(channels):
                sums[c] += _square(x[n, p, c], center[c])
        for g in range(groups):
            inv_std[n, g] = _inverse(_total(sums, g * width, width), points * width, eps)
        _spread(inv_std, n, scale)
        for p in range(points):
            for c in range(channels):
                y[n, p, c] = _y(x[n, p, c], center[c], scale[c], gamma[c], beta[c])


@body
def _forward(part, x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y):
    start, stop = chunks.bounds(part, scratch.shape[0], x.shape[0])
    scratch = scratch[part]
    if x.shape[1] == 1:
        _forward_vectors(x, groups, gamma, beta, eps, centered, start, stop, scratch[0], mean, inv_std, y)
    else:
        _forward_images(x, groups, gamma, beta, eps, centered, start, stop, scratch[0], scratch[1], scratch[2], mean, inv_std, y)


@serial
def forward_serial(x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y):
    for k in range(scratch.shape[0]):
        _forward(k, x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y)


@parallel
def forward_parallel(x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y):
    parallel_for(scratch.shape[0], _forward, (x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y))


# --------------------------------------------------------------------------------------------------- backward


@body
def _backward_vectors(dy, x, groups, gamma, mean, inv_std, centered, start, stop, g_terms, gx_terms, dgamma, dbeta, dx):
    """Rows of one point."""
    width = x.shape[2] // groups
    for n in range(start, stop):
        for g in range(groups):
            first = g * width
            center, scale = mean[n, g], inv_std[n, g]
            for c in range(width):
                dy_c, xhat = np.float64(dy[n, 0, first + c]), _xhat(x[n, 0, first + c], center, scale)
                dbeta[first + c] += dy_c
                dgamma[first + c] += _product(dy_c, xhat)
                g_terms[c] = _product(dy_c, gamma[first + c])
                gx_terms[c] = _product(_product(dy_c, gamma[first + c]), xhat)
            mean_g = _mean(0.0, _total(g_terms, 0, width), width) if centered else 0.0
            mean_gx = _mean(0.0, _total(gx_terms, 0, width), width)
            for c in range(width):
                dx[n, 0, first + c] = _dx(dy[n, 0, first + c], x[n, 0, first + c], gamma[first + c], center, scale, mean_g, mean_gx)


@body
def _backward_images(dy, x, groups, gamma, mean, inv_std, centered, start, stop, center, scale, mean_g, mean_gx, dgamma, dbeta, dx):
    """Rows of any number of points."""
    points, channels = x.shape[1], x.shape[2]
    width = channels // groups
    for n in range(start, stop):
        _spread(mean, n, center)
        _spread(inv_std, n, scale)
        for c in range(channels):
            mean_g[c] = 0.0
            mean_gx[c] = 0.0
        for p in range(points):
            for c in range(channels):
                mean_g[c] += np.float64(dy[n, p, c])
                mean_gx[c] += _product(dy[n, p, c], _xhat(x[n, p, c], center[c], scale[c]))
        for c in range(channels):
            dbeta[c] += mean_g[c]
            dgamma[c] += mean_gx[c]
            mean_g[c] = _product(mean_g[c], gamma[c])
            mean_gx[c] = _product(mean_gx[c], gamma[c])
        for g in range(groups):
            first = g * width
            of_g = _mean(0.0, _total(mean_g, first, width), points * width) if centered else 0.0
            of_gx = _mean(0.0, _total(mean_gx, first, width), points * width)
            for c in range(width):
                mean_g[first + c] = of_g
                mean_gx[first + c] = of_gx
        for p in range(points):
            for c in range(channels):
                dx[n, p, c] = _dx(dy[n, p, c], x[n, p, c], gamma[c], center[c], scale[c], mean_g[c], mean_gx[c])


@body
def _backward(part, dy, x, groups, gamma, mean, inv_std, centered, partials, dx):
    start, stop = chunks.bounds(part, partials.shape[0], x.shape[0])
    partial = partials[part]
    dgamma, dbeta, center, scale, mean_g, mean_gx = partial[0], partial[1], partial[2], partial[3], partial[4], partial[5]
    for c in range(x.shape[2]):
        dgamma[c] = 0.0
        dbeta[c] = 0.0
    if x.shape[1] == 1:
        _backward_vectors(dy, x, groups, gamma, mean, inv_std, centered, start, stop, mean_g, mean_gx, dgamma, dbeta, dx)
    else:
        _backward_images(dy, x, groups, gamma, mean, inv_std, centered, start, stop, center, scale, mean_g, mean_gx, dgamma, dbeta, dx)


@serial
def backward_serial(dy, x, groups, gamma, mean, inv_std, centered, partials, dgamma, dbeta, dx):
    for k in range(partials.shape[0]):
        _backward(k, dy, x, groups, gamma, mean, inv_std, centered, partials, dx)
    merge_sums(partials, dgamma, dbeta)


@parallel
def backward_parallel(dy, x, groups, gamma, mean, inv_std, centered, partials, dgamma, dbeta, dx):
    parallel_for(partials.shape[0], _backward, (dy, x, groups, gamma, mean, inv_std, centered, partials, dx))
    merge_sums(partials, dgamma, dbeta)
