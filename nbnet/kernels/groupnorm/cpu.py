"""Group normalisation on the CPU: a body over one chunk of rows, and a serial and a parallel driver over the chunks.

Rows of one point (layer normalisation) go group by group. Rows of several points (images) go point by point, with sums and
statistics spread over the channels, so that the loops are long however narrow the groups are: 1.6 ms where loops over groups
of 2 channels took 10 (64 x 1024 x 64 float32, serial).

Innermost loops run over range(width) and index [first + c]. Over range(first, first + width) Numba cannot tell that c is not
negative, and its test for that keeps LLVM from vector code. Formulas of several products are `exact` functions, and sums are
apart from what is stored: with fastmath, a driver's first run and its later ones from the cache rounded them differently,
since LLVM optimises a linked body once more.
"""

import numpy as np
from numba import njit, prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.groupnorm import TINY

exact = njit(error_model="numpy")  # no fastmath: rounds as written, wherever it is inlined


@exact
def _xhat(x, center, scale):
    return (np.float64(x) - center) * scale


@exact
def _y(x, center, scale, gamma, beta):
    return _xhat(x, center, scale) * np.float64(gamma) + np.float64(beta)


@exact
def _g(dy, gamma):
    return np.float64(dy) * np.float64(gamma)


@exact
def _gx(g, x, center, scale):
    return np.float64(g) * _xhat(x, center, scale)


@exact
def _dx(dy, x, gamma, center, scale, mean_g, mean_gx):
    return (_g(dy, gamma) - mean_g - _xhat(x, center, scale) * mean_gx) * scale


@exact
def _square(x, center):
    d = np.float64(x) - center
    return d * d


@exact
def _inverse(m2, size, eps):
    return 1.0 / np.sqrt(max(m2 / size + eps, TINY))


@body
def _fold(channels, groups):
    """Replace the sums of the channels by those of the groups, in the first places: g is at most the group's first channel."""
    width = channels.shape[0] // groups
    for g in range(groups):
        first = g * width
        total = 0.0
        for c in range(width):
            total += channels[first + c]
        channels[g] = total


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
def _forward_vector(x, n, groups, gamma, beta, eps, mean, inv_std, y):
    """Row n, of one point."""
    width = x.shape[2] // groups
    for g in range(groups):
        first = g * width
        origin = np.float64(x[n, 0, first])
        total = 0.0
        for c in range(width):
            total += np.float64(x[n, 0, first + c]) - origin
        mu = origin + total / width
        m2 = 0.0
        for c in range(width):
            m2 += _square(x[n, 0, first + c], mu)
        scale = _inverse(m2, width, eps)
        for c in range(width):
            y[n, 0, first + c] = _y(x[n, 0, first + c], mu, scale, gamma[first + c], beta[first + c])
        mean[n, g] = mu
        inv_std[n, g] = scale


@body
def _forward_image(x, n, groups, gamma, beta, eps, scratch, mean, inv_std, y):
    """Row n, of any number of points."""
    points, channels = x.shape[1], x.shape[2]
    size = points * (channels // groups)
    center, scale, sums = scratch[0], scratch[1], scratch[2]
    for g in range(groups):
        mean[n, g] = np.float64(x[n, 0, g * (channels // groups)])
    _spread(mean, n, center)
    for c in range(channels):
        sums[c] = 0.0
    for p in range(points):
        for c in range(channels):
            sums[c] += np.float64(x[n, p, c]) - center[c]
    _fold(sums, groups)
    for g in range(groups):
        mean[n, g] += sums[g] / size
    _spread(mean, n, center)
    for c in range(channels):
        sums[c] = 0.0
    for p in range(points):
        for c in range(channels):
            sums[c] += _square(x[n, p, c], center[c])
    _fold(sums, groups)
    for g in range(groups):
        inv_std[n, g] = _inverse(sums[g], size, eps)
    _spread(inv_std, n, scale)
    for p in range(points):
        for c in range(channels):
            y[n, p, c] = _y(x[n, p, c], center[c], scale[c], gamma[c], beta[c])


@body
def _forward(x, groups, gamma, beta, eps, start, stop, scratch, mean, inv_std, y):
    for n in range(start, stop):
        if x.shape[1] == 1:
            _forward_vector(x, n, groups, gamma, beta, eps, mean, inv_std, y)
        else:
            _forward_image(x, n, groups, gamma, beta, eps, scratch, mean, inv_std, y)


@serial
def forward_serial(x, groups, gamma, beta, eps, scratch, mean, inv_std, y):
    for k in range(scratch.shape[0]):
        start, stop = chunks.bounds(k, scratch.shape[0], x.shape[0])
        _forward(x, groups, gamma, beta, eps, start, stop, scratch[k], mean, inv_std, y)


@parallel
def forward_parallel(x, groups, gamma, beta, eps, scratch, mean, inv_std, y):
    for k in prange(scratch.shape[0]):
        start, stop = chunks.bounds(k, scratch.shape[0], x.shape[0])
        _forward(x, groups, gamma, beta, eps, start, stop, scratch[k], mean, inv_std, y)


# --------------------------------------------------------------------------------------------------- backward


@body
def _backward_vector(dy, x, n, groups, gamma, mean, inv_std, dgamma, dbeta, dx):
    """Row n, of one point."""
    width = x.shape[2] // groups
    for g in range(groups):
        first = g * width
        mu, scale = mean[n, g], inv_std[n, g]
        mean_g, mean_gx = 0.0, 0.0
        for c in range(width):
            g = _g(dy[n, 0, first + c], gamma[first + c])
            mean_g += g
            mean_gx += _gx(g, x[n, 0, first + c], mu, scale)
        for c in range(width):
            dgamma[first + c] += _gx(dy[n, 0, first + c], x[n, 0, first + c], mu, scale)
            dbeta[first + c] += np.float64(dy[n, 0, first + c])
        mean_g /= width
        mean_gx /= width
        for c in range(width):
            dx[n, 0, first + c] = _dx(dy[n, 0, first + c], x[n, 0, first + c], gamma[first + c], mu, scale, mean_g, mean_gx)


@body
def _backward_image(dy, x, n, groups, gamma, mean, inv_std, center, scale, mean_g, mean_gx, dgamma, dbeta, dx):
    """Row n, of any number of points."""
    points, channels = x.shape[1], x.shape[2]
    width = channels // groups
    _spread(mean, n, center)
    _spread(inv_std, n, scale)
    for c in range(channels):
        mean_g[c] = 0.0
        mean_gx[c] = 0.0
    for p in range(points):
        for c in range(channels):
            mean_g[c] += np.float64(dy[n, p, c])
            mean_gx[c] += _gx(dy[n, p, c], x[n, p, c], center[c], scale[c])
    for g in range(groups):
        first = g * width
        sum_g, sum_gx = 0.0, 0.0
        for c in range(width):
            sum_g += _g(mean_g[first + c], gamma[first + c])
            sum_gx += _g(mean_gx[first + c], gamma[first + c])
        for c in range(width):
            dbeta[first + c] += mean_g[first + c]
            dgamma[first + c] += mean_gx[first + c]
            mean_g[first + c] = sum_g / (points * width)
            mean_gx[first + c] = sum_gx / (points * width)
    for p in range(points):
        for c in range(channels):
            dx[n, p, c] = _dx(dy[n, p, c], x[n, p, c], gamma[c], center[c], scale[c], mean_g[c], mean_gx[c])


@body
def _backward(dy, x, groups, gamma, mean, inv_std, start, stop, partial, dx):
    dgamma, dbeta, center, scale, mean_g, mean_gx = partial[0], partial[1], partial[2], partial[3], partial[4], partial[5]
    for c in range(x.shape[2]):
        dgamma[c] = 0.0
        dbeta[c] = 0.0
    for n in range(start, stop):
        if x.shape[1] == 1:
            _backward_vector(dy, x, n, groups, gamma, mean, inv_std, dgamma, dbeta, dx)
        else:
            _backward_image(dy, x, n, groups, gamma, mean, inv_std, center, scale, mean_g, mean_gx, dgamma, dbeta, dx)


@body
def _merge_sums(partials, dgamma, dbeta):
    for c in range(dgamma.shape[0]):
        sum_dyx, sum_dy = 0.0, 0.0
        for k in range(partials.shape[0]):
            sum_dyx += partials[k, 0, c]
            sum_dy += partials[k, 1, c]
        dgamma[c] = sum_dyx
        dbeta[c] = sum_dy


@serial
def backward_serial(dy, x, groups, gamma, mean, inv_std, partials, dgamma, dbeta, dx):
    for k in range(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward(dy, x, groups, gamma, mean, inv_std, start, stop, partials[k], dx)
    _merge_sums(partials, dgamma, dbeta)


@parallel
def backward_parallel(dy, x, groups, gamma, mean, inv_std, partials, dgamma, dbeta, dx):
    for k in prange(partials.shape[0]):
        start, stop = chunks.bounds(k, partials.shape[0], x.shape[0])
        _backward(dy, x, groups, gamma, mean, inv_std, start, stop, partials[k], dx)
    _merge_sums(partials, dgamma, dbeta)
