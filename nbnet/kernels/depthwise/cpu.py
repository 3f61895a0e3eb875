"""Depthwise convolution on the CPU: vectors of channels, a few neighbouring pixels at a time."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import merge_moments, moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_as, load_whole, store, widen, zero
from nbnet.kernels.depthwise import chunk_count

PIXELS = 4  # that share each vector of weights


@body
def _met(outputs, inputs, stride, offset):
    """The first and the last (exclusive) output o whose input o * stride + offset is inside."""
    first = max(0, (stride - 1 - offset) // stride)
    return first, max(first, min(outputs, (inputs - 1 - offset) // stride + 1))


@body
def _bounds(size, outputs, inputs, stride, pad, dilation):
    """_met for each position of the kernel along one axis, (size, 2)."""
    bounds = np.empty((size, 2), np.intp)
    for k in range(size):
        bounds[k, 0], bounds[k, 1] = _met(outputs, inputs, stride, k * dilation - pad)
    return bounds


@body
def _all_met(bounds):
    """The first and the last (exclusive) output whose whole window is inside."""
    first, last = bounds[0, 0], bounds[0, 1]
    for k in range(1, bounds.shape[0]):
        first, last = max(first, bounds[k, 0]), min(last, bounds[k, 1])
    return first, max(first, last)


# ------------------------------------------------------------------------------------------------ one row of windows


@body
def _windows(x, base, weight, w_at, turn, init, c, n, taps, target, at, channels, slope):
    """PIXELS outputs side by side, of a vector of n channels from c on, whose windows are inside.

    taps: the first and the last (exclusive) row of the kernel that meets the image, its columns, the distance of x's rows, of its columns
    in the kernel and of its pixels in the output, in numbers. Weight t is at w_at + t * turn.
    """
    first, last, size, line, step, apart = taps
    z0 = load(init, c, n)
    z1, z2, z3 = z0, z0, z0
    if n >= lanes(x):
        for kh in range(first, last):
            for kw in range(size):
                w = load_whole(weight, w_at + (kh * size + kw) * turn + c)
                here = base + kh * line + kw * step + c
                z0 = z0 + load_whole(x, here) * w
                z1 = z1 + load_whole(x, here + apart) * w
                z2 = z2 + load_whole(x, here + 2 * apart) * w
                z3 = z3 + load_whole(x, here + 3 * apart) * w
    else:
        for kh in range(first, last):
            for kw in range(size):
                w = load(weight, w_at + (kh * size + kw) * turn + c, n)
                here = base + kh * line + kw * step + c
                z0 = z0 + load(x, here, n) * w
                z1 = z1 + load(x, here + apart, n) * w
                z2 = z2 + load(x, here + 2 * apart, n) * w
                z3 = z3 + load(x, here + 3 * apart, n) * w
    if slope != 1:
        z0, z1, z2, z3 = activated(z0, slope), activated(z1, slope), activated(z2, slope), activated(z3, slope)
    store(target, at + c, n, z0)
    store(target, at + channels + c, n, z1)
    store(target, at + 2 * channels + c, n, z2)
    store(target, at + 3 * channels + c, n, z3)


@body
def _window(x, base, weight, w_at, turn, init, c, n, taps, bounds, ow, target, at, slope):
    """As _windows, one output, whose window may reach beyond the left and right edge."""
    first, last, size, line, step, _ = taps
    z = load(init, c, n)
    for kh in range(first, last):
        for kw in range(size):
            if bounds[kw, 0] <= ow < bounds[kw, 1]:
                z = z + load(x, base + kh * line + kw * step + c, n) * load(weight, w_at + (kh * size + kw) * turn + c, n)
    if slope != 1:
        z = activated(z, slope)
    store(target, at + c, n, z)


@body
def _rows(start, stop, x, weight, turned, init, slope, kernel, geometry, y):
    """Rows start to stop, counted over all images, of y. turned: whether the kernel is rotated by 180 degrees. kernel: KH, KW."""
    kernel_h, kernel_w = kernel
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    _, height, width, channels = x.shape
    out_h, out_w = y.shape[1], y.shape[2]
    source, target = x.reshape(-1), y.reshape(-1)
    w_at, turn = (kernel_h * kernel_w - 1) * channels if turned else 0, -channels if turned else channels
    of_rows = _bounds(kernel_h, out_h, height, stride_h, pad_top, dilation_h)
    of_columns = _bounds(kernel_w, out_w, width, stride_w, pad_left, dilation_w)
    inner, outer = _all_met(of_columns)
    outer = inner + (outer - inner) // PIXELS * PIXELS
    line, step, apart = dilation_h * width * channels, dilation_w * channels, stride_w * channels
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        first, last = kernel_h, kernel_h
        for kh in range(kernel_h - 1, -1, -1):
            if of_rows[kh, 0] <= oh < of_rows[kh, 1]:
                first = kh
            elif first == last:
                first = last = kh
        taps = first, last, kernel_w, line, step, apart
        base = ((image * height + oh * stride_h - pad_top) * width - pad_left) * channels
        for c in range(0, channels, lanes(y)):
            n = channels - c
            for ow in range(inner, outer, PIXELS):
                at = (row * out_w + ow) * channels
                _windows(source, base + ow * apart, weight, w_at, turn, init, c, n, taps, target, at, channels, slope)
            for k in range(inner + out_w - outer):
                ow = k if k < inner else k - inner + outer
                at = (row * out_w + ow) * channels
                _window(source, base + ow * apart, weight, w_at, turn, init, c, n, taps, of_columns, ow, target, at, slope)


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(part, parts, x, weight, bias, slope, geometry, y, partials):
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    kernel_h, kernel_w, channels = weight.shape
    _rows(start, stop, x, weight.reshape(-1), False, bias, slope, (kernel_h, kernel_w), geometry, y)
    if partials.shape[0] > 0:
        out_w = y.shape[2]
        moments_of_rows(y.reshape(-1, channels), None, start * out_w, stop * out_w, np.intp(0), channels, partials[part])


@serial
def forward_serial(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, y, partials, mean, m2):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    n = chunk_count(y.shape[0], y.shape[1], y.shape[2], y.shape[3], weight.shape[0] * weight.shape[1])
    for k in range(n):
        _forward(k, n, x, weight, bias, slope, geometry, y, partials)
    if partials.shape[0] > 0:
        merge_moments(partials, mean, m2)


@parallel
def forward_parallel(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, y, partials, mean, m2):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    n = chunk_count(y.shape[0], y.shape[1], y.shape[2], y.shape[3], weight.shape[0] * weight.shape[1])
    parallel_for(n, _forward, (n, x, weight, bias, slope, geometry, y, partials))
    if partials.shape[0] > 0:
        merge_moments(partials, mean, m2)


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _scatter_row(dy, source_at, first, last, weight, w_at, c, n, dx, target_at, apart, channels):
    """Add dy times a vector of weights to the pixels of a row of dx that one position of the kernel has met."""
    w = load(weight, w_at + c, n)
    for ow in range(first, last):
        at = target_at + ow * apart + c
        store(dx, at, n, load(dx, at, n) + load(dy, source_at + ow * channels + c, n) * w)


@body
def _backward_data(part, parts, dy, weight, geometry, zeros, dx):
    """Rows of dx, counted over all images. With stride 1 that is a convolution by the rotated kernel; else each row of dy that met this row
    of dx adds to it."""
    kernel_h, kernel_w, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    _, height, width, _ = dx.shape
    start, stop = chunks.bounds(part, parts, dx.shape[0] * height)
    flat = weight.reshape(-1)
    if stride_h * stride_w == 1:
        top, left = (kernel_h - 1) * dilation_h - pad_top, (kernel_w - 1) * dilation_w - pad_left
        turned = stride_h, stride_w, top, left, dilation_h, dilation_w
        _rows(start, stop, dy, flat, True, zeros, 1.0, (kernel_h, kernel_w), turned, dx)
        return
    out_h, out_w = dy.shape[1], dy.shape[2]
    bounds = _bounds(kernel_w, out_w, width, stride_w, pad_left, dilation_w)
    source, target = dy.reshape(-1), dx.reshape(-1)
    for row in range(start, stop):
        image, h = divmod(row, height)
        for c in range(0, channels, lanes(dx)):
            n = channels - c
            for w in range(width):
                store(target, (row * width + w) * channels + c, n, zero(load(zeros, c, n)))
            for kh in range(kernel_h):
                oh, rest = divmod(h + pad_top - kh * dilation_h, stride_h)
                if rest == 0 and 0 <= oh < out_h:
                    at = (image * out_h + oh) * out_w * channels
                    for kw in range(kernel_w):
                        to = (row * width + kw * dilation_w - pad_left) * channels
                        first, last = bounds[kw, 0], bounds[kw, 1]
                        w_at = (kh * kernel_w + kw) * channels
                        _scatter_row(source, at, first, last, flat, w_at, c, n, target, to, stride_w * channels, channels)


@serial
def backward_data_serial(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, dx):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    n = chunk_count(dx.shape[0], dx.shape[1], dx.shape[2], dx.shape[3], weight.shape[0] * weight.shape[1])
    zeros = np.zeros(dx.shape[3], dx.dtype)
    for k in range(n):
        _backward_data(k, n, dy, weight, geometry, zeros, dx)


@parallel
def backward_data_parallel(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, dx):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    n = chunk_count(dx.shape[0], dx.shape[1], dx.shape[2], dx.shape[3], weight.shape[0] * weight.shape[1])
    zeros = np.zeros(dx.shape[3], dx.dtype)
    parallel_for(n, _backward_data, (n, dy, weight, geometry, zeros, dx))


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _products(x, x_at, apart, dy, dy_at, channels, c, n, count):
    """The sum over `count` pixels of x times dy, of a vector of n channels from c on."""
    none = zero(load(dy, c, 0))
    z0, z1, z2, z3 = none, none, none, none
    whole = count // PIXELS * PIXELS
    if n < lanes(x):
        for k in range(count):
            z0 = z0 + load(x, x_at + k * apart + c, n) * load(dy, dy_at + k * channels + c, n)
        return z0
    for k in range(0, whole, PIXELS):
        a, b = x_at + k * apart + c, dy_at + k * channels + c
        z0 = z0 + load_whole(x, a) * load_whole(dy, b)
        z1 = z1 + load_whole(x, a + apart) * load_whole(dy, b + channels)
        z2 = z2 + load_whole(x, a + 2 * apart) * load_whole(dy, b + 2 * channels)
        z3 = z3 + load_whole(x, a + 3 * apart) * load_whole(dy, b + 3 * channels)
    for k in range(whole, count):
        z0 = z0 + load_whole(x, x_at + k * apart + c) * load_whole(dy, dy_at + k * channels + c)
    return (z0 + z1) + (z2 + z3)


@body
def _add(partial, tap, channels, c, n, value):
    """Add a vector to the sums of a position of the kernel, in float64."""
    wide = widen(value)
    at = tap * channels + c
    store(partial, at, n, load_as(partial, at, n, wide) + wide)


@body
def _sum_of_row(dy, dy_at, channels, c, n, count):
    total = zero(load(dy, c, 0))
    for k in range(count):
        total = total + load(dy, dy_at + k * channels + c, n)
    return total


@body
def _backward_weights(part, parts, x, dy, kernel, geometry, biased, partials):
    """Rows of dy, counted over all images. kernel: KH, KW."""
    kernel_h, kernel_w = kernel
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    _, height, width, channels = x.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dy.shape[0] * out_h)
    bounds = _bounds(kernel_w, out_w, width, stride_w, pad_left, dilation_w)
    partials[part] = 0
    source, gradient, partial = x.reshape(-1), dy.reshape(-1), partials[part].reshape(-1)
    apart = stride_w * channels
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        for c in range(0, channels, lanes(x)):
            n = channels - c
            for kh in range(kernel_h):
                h = oh * stride_h + kh * dilation_h - pad_top
                if 0 <= h < height:
                    for kw in range(kernel_w):
                        first, last = bounds[kw, 0], bounds[kw, 1]
                        at = ((image * height + h) * width + kw * dilation_w - pad_left) * channels + first * apart
                        dy_at = (row * out_w + first) * channels
                        total = _products(source, at, apart, gradient, dy_at, channels, c, n, last - first)
                        _add(partial, kh * kernel_w + kw, channels, c, n, total)
            if biased:
                _add(partial, kernel_h * kernel_w, channels, c, n, _sum_of_row(gradient, row * out_w * channels, channels, c, n, out_w))


@precise
def _merge(partials, dweight, dbias):
    """Add up partials (K, KH*KW + 1, C) in order."""
    taps, channels = dweight.shape
    for tap in range(taps + 1):
        if tap == taps and dbias.size == 0:
            continue
        for c in range(channels):
            total = 0.0
            for k in range(partials.shape[0]):
                total += partials[k, tap, c]
            if tap < taps:
                dweight[tap, c] = total
            else:
                dbias[c] = total


@serial
def backward_weights_serial(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, partials, dweight, dbias):
    kernel_h, kernel_w, channels = dweight.shape
    kernel, geometry = (kernel_h, kernel_w), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)
    n, biased = partials.shape[0], dbias.size > 0
    for k in range(n):
        _backward_weights(k, n, x, dy, kernel, geometry, biased, partials)
    _merge(partials, dweight.reshape(-1, channels), dbias)


@parallel
def backward_weights_parallel(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, partials, dweight, dbias):
    kernel_h, kernel_w, channels = dweight.shape
    kernel, geometry = (kernel_h, kernel_w), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)
    n, biased = partials.shape[0], dbias.size > 0
    parallel_for(n, _backward_weights, (n, x, dy, kernel, geometry, biased, partials))
    _merge(partials, dweight.reshape(-1, channels), dbias)
