"""Pooling on the CPU: channels innermost, so that the loops run over contiguous memory."""

import numpy as np
from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial


@body
def _window(index, size, stride, pad, limit):
    """The first and the last (exclusive) of the input's rows or columns that output `index` looks at."""
    first = index * stride - pad
    return max(first, 0), min(first + size, limit)


@body
def _larger(a, b):
    """The maximum of two, where NaN counts as the largest and the first of equals is kept."""
    return a if a >= b or a != a else b


# ------------------------------------------------------------------------------------------------ max_forward


@body
def _max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y):
    """Output rows start to stop, counted over all images."""
    for row in range(start, stop):
        n, oh = divmod(row, y.shape[1])
        top, bottom = _window(oh, size_h, stride_h, pad_top, x.shape[1])
        for ow in range(y.shape[2]):
            left, right = _window(ow, size_w, stride_w, pad_left, x.shape[2])
            best = y[n, oh, ow]
            if bottom - top == 2 and right - left == 2:
                x0, x1, x2, x3 = x[n, top, left], x[n, top, left + 1], x[n, top + 1, left], x[n, top + 1, left + 1]
                for c in range(best.size):
                    best[c] = _larger(_larger(x0[c], x1[c]), _larger(x2[c], x3[c]))
            else:
                pixel = x[n, top, left]
                for c in range(best.size):
                    best[c] = pixel[c]
                for h in range(top, bottom):
                    for w in range(left, right):
                        pixel = x[n, h, w]
                        for c in range(best.size):
                            best[c] = _larger(best[c], pixel[c])


@serial
def max_forward_serial(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, y.shape[2] * y.shape[3] * size_h * size_w)
    for k in range(n):
        start, stop = chunks.bounds(k, n, rows)
        _max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y)


@parallel
def max_forward_parallel(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, y.shape[2] * y.shape[3] * size_h * size_w)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, rows)
        _max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y)


# ----------------------------------------------------------------------------------------------- max_backward


@body
def _give_to_winner_of_4(dy, x0, x1, x2, x3, dx0, dx1, dx2, dx3):
    """The case of a window of 2 x 2 without branches, which LLVM turns into vector code."""
    zero = x0.dtype.type(0)
    for c in range(dy.size):
        g, a, b = dy[c], x0[c], x2[c]
        upper, lower = _larger(a, x1[c]), _larger(b, x3[c])
        in_upper = upper >= lower or upper != upper
        is_first = a >= x1[c] or a != a
        is_third = b >= x3[c] or b != b
        dx0[c] += g if in_upper and is_first else zero
        dx1[c] += g if in_upper and not is_first else zero
        dx2[c] += g if not in_upper and is_third else zero
        dx3[c] += g if not in_upper and not is_third else zero


@body
def _max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, n, dx):
    """One image: neighbouring windows may add to the same pixel, so an image is not shared between threads."""
    dx[n] = 0
    for oh in range(dy.shape[1]):
        top, bottom = _window(oh, size_h, stride_h, pad_top, x.shape[1])
        for ow in range(dy.shape[2]):
            left, right = _window(ow, size_w, stride_w, pad_left, x.shape[2])
            if bottom - top == 2 and right - left == 2:
                x0, x1, x2, x3 = x[n, top, left], x[n, top, left + 1], x[n, top + 1, left], x[n, top + 1, left + 1]
                dx0, dx1, dx2, dx3 = dx[n, top, left], dx[n, top, left + 1], dx[n, top + 1, left], dx[n, top + 1, left + 1]
                _give_to_winner_of_4(dy[n, oh, ow], x0, x1, x2, x3, dx0, dx1, dx2, dx3)
            else:
                for c in range(dy.shape[3]):
                    best, best_h, best_w = x[n, top, left, c], top, left
                    for h in range(top, bottom):
                        for w in range(left, right):
                            value = x[n, h, w, c]
                            if not (best >= value or best != best):
                                best, best_h, best_w = value, h, w
                    dx[n, best_h, best_w, c] += dy[n, oh, ow, c]


@serial
def max_backward_serial(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    n = chunks.count(dy.shape[0], dy.shape[1] * dy.shape[2] * dy.shape[3] * size_h * size_w)
    for k in range(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        for image in range(start, stop):
            _max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, image, dx)


@parallel
def max_backward_parallel(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    n = chunks.count(dy.shape[0], dy.shape[1] * dy.shape[2] * dy.shape[3] * size_h * size_w)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        for image in range(start, stop):
            _max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, image, dx)


# ------------------------------------------------------------------------------------------------ avg_forward


@body
def _mean_of_8(x, n, top, bottom, left, right, c, y):
    """Eight channels from c at a time, summed in float64 in registers."""
    s0, s1, s2, s3, s4, s5, s6, s7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for h in range(top, bottom):
        for w in range(left, right):
            pixel = x[n, h, w, c : c + 8]
            s0 += np.float64(pixel[0])
            s1 += np.float64(pixel[1])
            s2 += np.float64(pixel[2])
            s3 += np.float64(pixel[3])
            s4 += np.float64(pixel[4])
            s5 += np.float64(pixel[5])
            s6 += np.float64(pixel[6])
            s7 += np.float64(pixel[7])
    share = 1.0 / ((bottom - top) * (right - left))
    y[c], y[c + 1], y[c + 2], y[c + 3] = s0 * share, s1 * share, s2 * share, s3 * share
    y[c + 4], y[c + 5], y[c + 6], y[c + 7] = s4 * share, s5 * share, s6 * share, s7 * share


@body
def _avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y):
    """Output rows start to stop, counted over all images."""
    channels = x.shape[3]
    whole = channels // 8 * 8
    for row in range(start, stop):
        n, oh = divmod(row, y.shape[1])
        top, bottom = _window(oh, size_h, stride_h, pad_top, x.shape[1])
        for ow in range(y.shape[2]):
            left, right = _window(ow, size_w, stride_w, pad_left, x.shape[2])
            for c in range(0, whole, 8):
                _mean_of_8(x, n, top, bottom, left, right, c, y[n, oh, ow])
            for c in range(whole, channels):
                total = 0.0
                for h in range(top, bottom):
                    for w in range(left, right):
                        total += np.float64(x[n, h, w, c])
                y[n, oh, ow, c] = total / ((bottom - top) * (right - left))


@serial
def avg_forward_serial(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, y.shape[2] * y.shape[3] * size_h * size_w)
    for k in range(n):
        start, stop = chunks.bounds(k, n, rows)
        _avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y)


@parallel
def avg_forward_parallel(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    rows = y.shape[0] * y.shape[1]
    n = chunks.count(rows, y.shape[2] * y.shape[3] * size_h * size_w)
    for k in prange(n):
        start, stop = chunks.bounds(k, n, rows)
        _avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, y)


# ----------------------------------------------------------------------------------------------- avg_backward


@body
def _lookers(index, size, stride, pad, outputs):
    """The first and the last (exclusive) of the output rows or columns whose windows hold input `index`."""
    at = index + pad
    return max(0, (at - size + stride) // stride), min(at // stride + 1, outputs)


@body
def _avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, dx):
    """Input rows start to stop, counted over all images: each pixel gathers, so that no two chunks write to one pixel."""
    height, width, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    for row in range(start, stop):
        n, h = divmod(row, height)
        first_h, last_h = _lookers(h, size_h, stride_h, pad_top, dy.shape[1])
        for w in range(width):
            first_w, last_w = _lookers(w, size_w, stride_w, pad_left, dy.shape[2])
            target = dx[n, h, w]
            if first_h >= last_h or first_w >= last_w:
                for c in range(channels):
                    target[c] = 0
            for oh in range(first_h, last_h):
                top, bottom = _window(oh, size_h, stride_h, pad_top, height)
                for ow in range(first_w, last_w):
                    left, right = _window(ow, size_w, stride_w, pad_left, width)
                    share = dx.dtype.type(1.0 / ((bottom - top) * (right - left)))
                    source = dy[n, oh, ow]
                    if oh == first_h and ow == first_w:
                        for c in range(channels):
                            target[c] = source[c] * share
                    else:
                        for c in range(channels):
                            target[c] += source[c] * share


@serial
def avg_backward_serial(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    rows = dx.shape[0] * dx.shape[1]
    n = chunks.count(rows, dx.shape[2] * dx.shape[3])
    for k in range(n):
        start, stop = chunks.bounds(k, n, rows)
        _avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, dx)


@parallel
def avg_backward_parallel(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    rows = dx.shape[0] * dx.shape[1]
    n = chunks.count(rows, dx.shape[2] * dx.shape[3])
    for k in prange(n):
        start, stop = chunks.bounds(k, n, rows)
        _avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, start, stop, dx)
