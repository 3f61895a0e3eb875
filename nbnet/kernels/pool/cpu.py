"""Pooling on the CPU: channels innermost, so that the loops run over contiguous memory.

Inner loops index the whole array, x[n, h, w, c], instead of slices: a slice counts references with atomic operations, which made
serial max_forward five times slower. LLVM hoists the address computation out of the loop anyway.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import bypasses_cache, store_or_stream
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, narrow, splat_as, store, where, widen, zero
from nbnet.kernels.cpu.windows import fetch_window, first_wins


@body
def _window(index, size, stride, pad, limit):
    """The first and the last (exclusive) of the input's rows or columns in the window of output `index`."""
    first = index * stride - pad
    return max(first, 0), min(first + size, limit)


@body
def _pixels(index, size, stride, pad, limit, end):
    """How many pixels count along one axis of the window of output `index`: with an end, those of the padded image."""
    first = index * stride - pad
    return min(first + size, end) - first if end > 0 else min(first + size, limit) - max(first, 0)


@body
def _larger(a, b):
    """The maximum of two, where NaN is the largest and the first of equals is kept."""
    return a if a >= b or a != a else b


@body
def _larger_of(a, b):
    """As _larger, of vectors."""
    return where(first_wins(a, b), a, b)


# ------------------------------------------------------------------------------------------------ max_forward


@body
def _max_forward(part, parts, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    """Output rows start to stop, counted over all images."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    channels = x.shape[3]
    source, target = x.reshape(-1), y.reshape(-1)
    for row in range(start, stop):
        n, oh = divmod(row, y.shape[1])
        top, bottom = _window(oh, size_h, stride_h, pad_top, x.shape[1])
        for ow in range(y.shape[2]):
            left, right = _window(ow, size_w, stride_w, pad_left, x.shape[2])
            if bottom - top == 2 and right - left == 2:
                at, line = ((n * x.shape[1] + top) * x.shape[2] + left) * channels, x.shape[2] * channels
                for c in range(0, channels, lanes(x)):
                    fetch_window(source, at + c, x.shape[2], channels)
                    upper = _larger_of(load(source, at + c, channels - c), load(source, at + channels + c, channels - c))
                    lower = _larger_of(load(source, at + line + c, channels - c), load(source, at + line + channels + c, channels - c))
                    store(target, (row * y.shape[2] + ow) * channels + c, channels - c, _larger_of(upper, lower))
            else:
                for c in range(channels):
                    y[n, oh, ow, c] = x[n, top, left, c]
                for h in range(top, bottom):
                    for w in range(left, right):
                        for c in range(channels):
                            y[n, oh, ow, c] = _larger(y[n, oh, ow, c], x[n, h, w, c])


@serial
def max_forward_serial(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * size_h * size_w)
    for k in range(n):
        _max_forward(k, n, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y)


@parallel
def max_forward_parallel(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * size_h * size_w)
    parallel_for(n, _max_forward, (n, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y))


# ----------------------------------------------------------------------------------------------- max_backward


@body
def _clear(start, stop, dx):
    for i in range(start, stop):
        dx[np.uintp(i)] = 0


@body
def _max_backward_of_quarters(dy, x, start, stop, dx):
    """Images start to stop, cut into windows of 2 x 2: each pixel is written once."""
    _, height, width, channels = x.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    gradient, source, target = dy.reshape(-1), x.reshape(-1), dx.reshape(-1)
    line, bypasses = width * channels, bypasses_cache(dx, channels)
    for row in range(start * out_h, stop * out_h):
        image, pair = divmod(row, out_h)
        first = (image * height + 2 * pair) * line
        for column in range(out_w):
            for c in range(0, channels, lanes(x)):
                at, n = first + 2 * column * channels + c, channels - c
                fetch_window(source, at, width, channels)
                x0, x1 = load(source, at, n), load(source, at + channels, n)
                x2, x3 = load(source, at + line, n), load(source, at + line + channels, n)
                upper, lower = first_wins(x0, x1), first_wins(x2, x3)
                in_upper = first_wins(where(upper, x0, x1), where(lower, x2, x3))
                g = load(gradient, (row * out_w + column) * channels + c, n)
                above, below = where(in_upper, g, zero(g)), where(in_upper, zero(g), g)
                store_or_stream(target, at, n, where(upper, above, zero(g)), bypasses)
                store_or_stream(target, at + channels, n, where(upper, zero(g), above), bypasses)
                store_or_stream(target, at + line, n, where(lower, below, zero(g)), bypasses)
                store_or_stream(target, at + line + channels, n, where(lower, zero(g), below), bypasses)
        _clear(first + 2 * out_w * channels, first + line, target)
        _clear(first + line + 2 * out_w * channels, first + 2 * line, target)
    for image in range(start, stop):
        _clear((image * height + 2 * out_h) * line, (image + 1) * height * line, target)


@body
def _max_backward(part, parts, dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    """Whole images start to stop: neighbouring windows may add to the same pixel."""
    start, stop = chunks.bounds(part, parts, dy.shape[0])
    quarters = size_h == 2 and size_w == 2 and stride_h == 2 and stride_w == 2 and pad_top == 0 and pad_left == 0
    if quarters and dy.shape[1] == x.shape[1] // 2 and dy.shape[2] == x.shape[2] // 2:
        _max_backward_of_quarters(dy, x, start, stop, dx)
        return
    for n in range(start, stop):
        dx[n] = 0
        for oh in range(dy.shape[1]):
            top, bottom = _window(oh, size_h, stride_h, pad_top, x.shape[1])
            for ow in range(dy.shape[2]):
                left, right = _window(ow, size_w, stride_w, pad_left, x.shape[2])
                for c in range(dy.shape[3]):
                    best, best_h, best_w = x[n, top, left, c], top, left
                    for h in range(top, bottom):
                        for w in range(left, right):
                            value = x[n, h, w, c]
                            keep = best >= value or best != best
                            best, best_h, best_w = (best if keep else value), (best_h if keep else h), (best_w if keep else w)
                    dx[n, best_h, best_w, c] += dy[n, oh, ow, c]


@serial
def max_backward_serial(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    n = chunks.count(dy.shape[0], dy.shape[1] * dy.shape[2] * dy.shape[3] * size_h * size_w)
    for k in range(n):
        _max_backward(k, n, dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx)


@parallel
def max_backward_parallel(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx):
    n = chunks.count(dy.shape[0], dy.shape[1] * dy.shape[2] * dy.shape[3] * size_h * size_w)
    parallel_for(n, _max_backward, (n, dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx))


# ------------------------------------------------------------------------------------------------ avg_forward


@body
def _avg_forward(part, parts, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y):
    """Output rows start to stop, counted over all images; summed in float64."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    _, height, width, channels = x.shape
    source, target = x.reshape(-1), y.reshape(-1)
    for row in range(start, stop):
        n, oh = divmod(row, y.shape[1])
        top, bottom = _window(oh, size_h, stride_h, pad_top, height)
        pixels_h = _pixels(oh, size_h, stride_h, pad_top, height, end_h)
        for ow in range(y.shape[2]):
            left, right = _window(ow, size_w, stride_w, pad_left, width)
            share = 1.0 / (pixels_h * _pixels(ow, size_w, stride_w, pad_left, width, end_w))
            for c in range(0, channels, lanes(x)):
                count = channels - c
                nothing = zero(load(source, c, 0))
                total = widen(nothing)
                for h in range(top, bottom):
                    for w in range(left, right):
                        total = total + widen(load(source, ((n * height + h) * width + w) * channels + c, count))
                store(target, (row * y.shape[2] + ow) * channels + c, count, narrow(total * splat_as(share, total), nothing))


@serial
def avg_forward_serial(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * size_h * size_w)
    for k in range(n):
        _avg_forward(k, n, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y)


@parallel
def avg_forward_parallel(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * size_h * size_w)
    parallel_for(n, _avg_forward, (n, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y))


# ----------------------------------------------------------------------------------------------- avg_backward


@body
def _windows_of(index, size, stride, pad, outputs):
    """The first and the last (exclusive) of the output rows or columns whose windows contain input `index`."""
    at = index + pad
    return max(0, (at - size + stride) // stride), min(at // stride + 1, outputs)


@body
def _avg_backward(part, parts, dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx):
    """Input rows start to stop, counted over all images: each pixel gathers, so no two chunks write the same pixel."""
    start, stop = chunks.bounds(part, parts, dx.shape[0] * dx.shape[1])
    height, width, channels = dx.shape[1], dx.shape[2], dx.shape[3]
    out_h, out_w = dy.shape[1], dy.shape[2]
    gradient, target = dy.reshape(-1), dx.reshape(-1)
    for row in range(start, stop):
        n, h = divmod(row, height)
        first_h, last_h = _windows_of(h, size_h, stride_h, pad_top, out_h)
        for w in range(width):
            first_w, last_w = _windows_of(w, size_w, stride_w, pad_left, out_w)
            for c in range(0, channels, lanes(dx)):
                count = channels - c
                total = zero(load(gradient, c, 0))
                for oh in range(first_h, last_h):
                    pixels_h = _pixels(oh, size_h, stride_h, pad_top, height, end_h)
                    for ow in range(first_w, last_w):
                        pixels = pixels_h * _pixels(ow, size_w, stride_w, pad_left, width, end_w)
                        g = load(gradient, ((n * out_h + oh) * out_w + ow) * channels + c, count)
                        total = total + g * splat_as(1.0 / pixels, g)
                store(target, (row * width + w) * channels + c, count, total)


@serial
def avg_backward_serial(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx):
    n = chunks.count(dx.shape[0] * dx.shape[1], dx.shape[2] * dx.shape[3])
    for k in range(n):
        _avg_backward(k, n, dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx)


@parallel
def avg_backward_parallel(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx):
    n = chunks.count(dx.shape[0] * dx.shape[1], dx.shape[2] * dx.shape[3])
    parallel_for(n, _avg_backward, (n, dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx))
