"""Reductions over rows that several operations share: moments, sums and the parts of softmax.

Partial results of chunks are merged in chunk order, so results have the same bits on any number of threads. Merging is compiled
without fastmath: with it, LLVM may add in different orders in the serial and the parallel driver. It walks partial results in memory
order: those of one channel are a power of two apart, and map to few sets of the caches.
"""

import numpy as np

from nbnet.kernels.cpu.compile import body, precise
from nbnet.kernels.cpu.prefetch import needs_prefetch, prefetch
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import exp
from nbnet.kernels.cpu.vector import (
    largest_lane,
    load,
    load_as,
    load_whole,
    narrow,
    splat,
    splat_as,
    store,
    sum_of_lanes,
    where,
    widen,
    zero,
)

# Rows summed in registers before the sums go back to memory. Meanwhile the next rows are prefetched in memory order, not in order of
# use, which hardware prefetching cannot follow. Both fit the level-1 cache.
ROWS = 64

# ---------------------------------------------------------------------------------------------------- weights of rows


@body
def weights_of(weights, m, c, n):
    """The weights, (M, 1) or (M, C), of n numbers of row m, from channel c."""
    if weights.shape[1] == 1:
        return splat(weights[m, 0])
    return load(weights.reshape(-1), m * weights.shape[1] + c, n)


@body
def unless_masked(w, v):
    """v, but 0 where the weight w is 0 and v is not finite: whatever a masked row holds, it adds nothing to a sum."""
    infinity = splat_as(np.inf, v)
    return where((w > zero(w)) | ((infinity > v) & (v > zero(v) - infinity)), v, zero(v))


# ------------------------------------------------------------------------------------------------- down the columns


@body
def _add_deviations(x, origin, start, stop, left, right, mean, m2):
    """mean += sum of x - origin, m2 += sum of its squares, over rows start to stop and channels left to right; origin is a row of x."""
    channels = x.shape[1]
    flat, prefetches = x.reshape(-1), needs_prefetch(x) and right - left == channels  # only whole rows are contiguous
    for block in range(start, stop, ROWS):
        end, ahead = min(block + ROWS, stop), (block + ROWS) * channels
        for c in range(left, right, lanes(x)):
            n = right - c
            center = widen(load(flat, origin * channels + c, n))
            s, q = load_as(mean, c, n, center), load_as(m2, c, n, center)
            t, r = zero(s), zero(s)  # for every other row, since each addition waits for the previous one
            for m in range(block, end - 1, 2):
                at, next_at = m * channels + c, (m + 1) * channels + c
                if prefetches:
                    prefetch(flat, ahead)
                    prefetch(flat, ahead + lanes(x))
                    ahead += 2 * lanes(x)
                d, e = widen(load(flat, at, n)) - center, widen(load(flat, next_at, n)) - center
                s, q = s + d, q + d * d
                t, r = t + e, r + e * e
            if (end - block) % 2 == 1:
                d = widen(load(flat, (end - 1) * channels + c, n)) - center
                s, q = s + d, q + d * d
            store(mean, c, n, s + t)
            store(m2, c, n, q + r)


@body
def _add_weighted_deviations(x, weights, origin, start, stop, left, right, mean, m2, count):
    """The same with weights, about the first number of each channel whose weight is above 0, which is written to origin (C,);
    count += the weights. What has a weight of 0 is not looked at."""
    channels, flat = x.shape[1], x.reshape(-1)
    for block in range(start, stop, ROWS):
        for c in range(left, right, lanes(x)):
            n = right - c
            like = widen(load(flat, block * channels + c, n))
            first, k = load_as(origin, c, n, like), load_as(count, c, n, like)
            s, q = load_as(mean, c, n, like), load_as(m2, c, n, like)
            for m in range(block, min(block + ROWS, stop)):
                w, v = widen(weights_of(weights, m, c, n)), widen(load(flat, m * channels + c, n))
                first = where(k > zero(k), first, v)
                d = where(w > zero(w), v - first, zero(v))
                k, s, q = k + w, s + w * d, q + w * d * d
            store(origin, c, n, first)
            store(count, c, n, k)
            store(mean, c, n, s)
            store(m2, c, n, q)


@body
def _to_moments(origin, left, right, mean, m2, count):
    """Turn the sums of deviations and of their squares into the mean and the sum of squared deviations from it."""
    for c in range(left, right):
        d = mean[c] / count[c] if count[c] > 0 else 0.0
        m2[c] -= mean[c] * d
        mean[c] = np.float64(origin[c]) + d


@body
def moments_of_rows(x, weights, start, stop, left, right, partial):
    """Write mean, sum of squared deviations and sum of weights of rows start to stop to partial (3, C), for channels left to right."""
    mean, m2, count = partial[0], partial[1], partial[2]
    for c in range(left, right):
        mean[c] = 0.0
        m2[c] = 0.0
        count[c] = stop - start if weights is None else 0.0
    if weights is None:
        _add_deviations(x, start, start, stop, left, right, mean, m2)
        _to_moments(x[start], left, right, mean, m2, count)
    else:
        origin = np.zeros(right)
        _add_weighted_deviations(x, weights, origin, start, stop, left, right, mean, m2, count)
        _to_moments(origin, left, right, mean, m2, count)


@precise
def merge_moments(partials, mean, m2):
    """The mean and the sum of squared deviations of all rows, from those of each chunk, by the formula of Chan, Golub and LeVeque 1979."""
    channels, flat = mean.shape[0], partials.reshape(-1)
    totals = np.zeros(channels)
    mean[:] = 0.0
    m2[:] = 0.0
    for k in range(partials.shape[0]):
        for c in range(0, channels, lanes(mean)):
            left, at = channels - c, 3 * k * channels + c
            total, mu, squares = load(totals, c, left), load(mean, c, left), load(m2, c, left)
            n = load(flat, at + 2 * channels, left)
            some, together, delta = n > zero(n), total + n, load(flat, at, left) - mu
            grown = squares + (load(flat, at + channels, left) + delta * delta * total * n / together)
            store(m2, c, left, where(some, grown, squares))
            store(mean, c, left, where(some, mu + delta * (n / together), mu))  # delta itself for the first: a constant stays what it is
            store(totals, c, left, where(some, together, total))


@precise
def add_partials(partials, size):
    """Add the first `size` numbers of all others to those of partials[0], in order."""
    flat, apart = partials.reshape(-1), partials.size // partials.shape[0]
    for k in range(1, partials.shape[0]):
        for i in range(0, size, lanes(flat)):
            store(flat, i, size - i, load(flat, i, size - i) + load(flat, k * apart + i, size - i))


@precise
def merge_sums(partials, sum_g, sum_gx):
    """The sums over all rows, from those of each chunk, the first two rows of partials[k]."""
    add_partials(partials, 2 * sum_g.shape[0])
    for c in range(sum_g.shape[0]):
        sum_g[c] = partials[0, 0, c]
        sum_gx[c] = partials[0, 1, c]


@precise
def add_rows(b, at, rows, stride, columns, c, to):
    """c[to : to + columns] += the sum of rows of b, `stride` numbers apart, starting at b[at]; in a fixed order, so all kernels give the
    same bits, and in float64 from blocks of ROWS rows, so that long sums lose no digits."""
    for j in range(0, columns, lanes(b)):
        count = columns - j
        before = load(c, to + j, count)
        total = widen(before)
        for block in range(0, rows, ROWS):
            end = min(block + ROWS, rows)
            even, odd = zero(before), zero(before)  # two sums, since each addition waits for the previous one
            for row in range(block, end - 1, 2):
                even = even + load(b, at + row * stride + j, count)
                odd = odd + load(b, at + (row + 1) * stride + j, count)
            if (end - block) % 2 == 1:
                even = even + load(b, at + (end - 1) * stride + j, count)
            total = total + widen(even + odd)
        store(c, to + j, count, narrow(total, before))


@precise
def take_sums(source, at, target, to, size):
    """target[to : to + size] += source[at : at + size], which is then 0."""
    for i in range(0, size, lanes(source)):
        n = size - i
        sums = load(source, at + i, n)
        store(target, to + i, n, load(target, to + i, n) + sums)
        store(source, at + i, n, zero(sums))


# ------------------------------------------------------------------------------------------------------ along a row


@body
def _larger(a, b):
    return where(a > b, a, b)


@body
def largest_of_row(x, at, size):
    """The largest of `size` numbers of flat x from `at`; undefined if one is NaN."""
    step = lanes(x)
    if size < step:
        largest = x[at]
        for i in range(at + 1, at + size):
            largest = max(largest, x[i])
        return largest
    vector = load_whole(x, at)
    for c in range(step, size - step, step):
        vector = _larger(vector, load_whole(x, at + c))
    return largest_lane(_larger(vector, load_whole(x, at + size - step)))


@body
def exp_of_row(x, at, size, shift, y):
    """y = exp(x - shift) for `size` numbers from `at`; return their sum in float64."""
    whole = size - size % lanes(x)
    total = widen(zero(load(x, at, 0)))
    for c in range(0, size, lanes(x)):
        v = load(x, at + c, size - c)
        e = exp(v - splat_as(shift, v))
        store(y, at + c, size - c, e)
        if c < whole:
            total = total + widen(e)
    rest = sum_of_lanes(total)
    for i in range(at + whole, at + size):
        rest += np.float64(y[i])
    return rest


@body
def scale_row(y, at, size, factor):
    """y *= factor for `size` numbers from `at`."""
    for c in range(0, size, lanes(y)):
        v = load(y, at + c, size - c)
        store(y, at + c, size - c, v * splat_as(factor, v))
