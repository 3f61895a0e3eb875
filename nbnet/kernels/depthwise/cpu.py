"""Depthwise convolution on the CPU: vectors of channels, a few neighbouring pixels at a time. Kernels of three columns, which most networks
have, go along whole rows instead: see three_taps.

Forward and backward_data are one loop over the rows of the result. With a stride, the pixels of dx whose distance is the stride meet the
same positions of the kernel: each such phase of a row is a run of windows of dy, whose weights lie further apart. There is so little
arithmetic that memory sets the speed: rows that come next are prefetched, and results that leave the caches bypass them.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import FAR_DISTANCE, bypasses_cache, needs_prefetch, prefetch_far
from nbnet.kernels.cpu.reductions import add_partials, add_rows, merge_moments, moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_as, store, widen, zero
from nbnet.kernels.cpu.window_tiles import make_sums
from nbnet.kernels.depthwise import chunk_count, three_taps
from nbnet.kernels.depthwise.runs import inside, met, phase, run
from nbnet.kernels.depthwise.three_taps import fits

OUTPUTS = 8  # that are added to the sums of nine weights at a time
TERMS = 1024  # products that are added up in T before they are added to float64
nine_sums, three_sums = make_sums(3, 3), make_sums(1, 3)


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(part, parts, x, weight, bias, slope, geometry, y, partials):
    """Rows of y, counted over all images."""
    kernel_h, kernel_w, channels = weight.shape
    if fits(kernel_h, kernel_w, channels, geometry[1], geometry[5], x):
        three_taps.forward(part, parts, x, weight, bias, slope, geometry, y, partials)
    else:
        _forward_in_groups(part, parts, x, weight, bias, slope, geometry, y, partials)


@body
def _forward_in_groups(part, parts, x, weight, bias, slope, geometry, y, partials):
    kernel_h, kernel_w, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    height, width, out_h, out_w = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    start, stop = chunks.bounds(part, parts, y.shape[0] * out_h)
    line, slack = width * channels, (kernel_h - 1) * dilation_h * width * channels
    source = x.reshape(-1), stride_w * channels, dilation_h * line, dilation_w * channels
    weights = weight.reshape(-1), kernel_w * channels, channels
    result = bias, slope, y.reshape(-1), channels, bypasses_cache(y, channels) and partials.shape[0] == 0
    columns = out_w, -pad_left, stride_w, dilation_w, kernel_w, width
    pixels = stride_h * stride_w if needs_prefetch(x) else 0
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        h = oh * stride_h - pad_top
        base = (image * height + h) * line
        rows, fetch = inside(h, dilation_h, kernel_h, height), (base + slack + FAR_DISTANCE, pixels)
        run(source, base, weights, 0, rows, columns, result, row * out_w * channels, fetch)
    if partials.shape[0] > 0:
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
def _backward_data(part, parts, dy, weight, geometry, zeros, dx):
    """Rows of dx, counted over all images."""
    kernel_h, kernel_w, channels = weight.shape
    if fits(kernel_h, kernel_w, channels, geometry[1], geometry[5], dx):
        three_taps.backward_data(part, parts, dy, weight, geometry, zeros, dx)
    else:
        _backward_data_in_groups(part, parts, dy, weight, geometry, zeros, dx)


@body
def _backward_data_in_groups(part, parts, dy, weight, geometry, zeros, dx):
    kernel_h, kernel_w, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    height, width, out_h, out_w = dx.shape[1], dx.shape[2], dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dx.shape[0] * height)
    flat, line = weight.reshape(-1), out_w * channels
    result = zeros, 1.0, dx.reshape(-1), stride_w * channels, bypasses_cache(dx, channels)
    for row in range(start, stop):
        image, h = divmod(row, height)
        kh, step_h, taps_h, oh, up = phase(h + pad_top, stride_h, dilation_h, kernel_h)
        base, rows = (image * out_h + oh) * line, inside(oh, -up, taps_h, out_h)
        for w in range(min(stride_w, width)):
            kw, step_w, taps_w, ow, back = phase(w + pad_left, stride_w, dilation_w, kernel_w)
            source = dy.reshape(-1), channels, -up * line, -back * channels
            weights = flat, step_h * kernel_w * channels, step_w * channels
            columns = (width - w + stride_w - 1) // stride_w, ow, 1, -back, taps_w, out_w
            fetch = base + FAR_DISTANCE, 1 if w == 0 and needs_prefetch(dy) else 0
            run(source, base, weights, (kh * kernel_w + kw) * channels, rows, columns, result, (row * width + w) * channels, fetch)


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
def _add_inner(source, at, dy, dy_at, count, rows, channels, sums, to, of_kernel, fetch):
    """Add to the sums of three columns of the kernel the products of `count` outputs whose inputs are all inside, for the channels
    of whole vectors. source and fetch: as in nbnet.kernels.depthwise.runs."""
    (x, apart, down, step), (ahead, pixels) = source, fetch
    for k in range(0, count, OUTPUTS):
        outputs = min(OUTPUTS, count - k)
        for c in range(0, channels - lanes(x) + 1, lanes(x)):
            for i in range(outputs * pixels):
                prefetch_far(x, ahead + c * outputs * pixels + i * lanes(x))
            for i in range(outputs if pixels > 0 else 0):
                prefetch_far(dy, dy_at + FAR_DISTANCE + c * outputs + i * lanes(x))
            triples = rows // 3 * 3
            for r in range(0, triples, 3):
                here, there = at + r * down + c, to + r * of_kernel + c
                nine_sums(x, here, apart, down, step, dy, dy_at + c, channels, outputs, sums, there, of_kernel, channels)
            for r in range(triples, rows):
                here, there = at + r * down + c, to + r * of_kernel + c
                three_sums(x, here, apart, 0, step, dy, dy_at + c, channels, outputs, sums, there, 0, channels)
        at, dy_at, ahead = at + OUTPUTS * apart, dy_at + OUTPUTS * channels, ahead + outputs * pixels * channels


@body
def _add_output(source, at, dy, dy_at, rows, channels, sums, to, of_kernel, first):
    """Add to the sums of one column of the kernel the products of one output, for the channels from `first` on."""
    x, _, down, _ = source
    for r in range(rows):
        here, there = at + r * down, to + r * of_kernel
        for c in range(first, channels, lanes(x)):
            n = channels - c
            store(sums, there + c, n, fma(load(x, here + c, n), load(dy, dy_at + c, n), load(sums, there + c, n)))


@body
def _to_float64(sums, partial):
    """partial += sums, which become 0. Whole vectors: both have space for the last one."""
    for i in range(0, partial.size, lanes(sums)):
        value = load(sums, i, partial.size - i)
        wide = widen(value)
        store(partial, i, partial.size - i, load_as(partial, i, partial.size - i, wide) + wide)
        store(sums, i, partial.size - i, zero(value))


@body
def _backward_weights(part, parts, x, dy, kernel, geometry, biased, partials):
    """Rows of dy, counted over all images. kernel: KH, KW. Three columns of the kernel, in three of its rows if all are inside, share each
    vector of dy, where all columns are inside."""
    kernel_h, kernel_w = kernel
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    _, height, width, channels = x.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dy.shape[0] * out_h)
    apart, down, step, of_kernel = stride_w * channels, dilation_h * width * channels, dilation_w * channels, kernel_w * channels
    source, gradient, partial = (x.reshape(-1), apart, down, step), dy.reshape(-1), partials[part].reshape(-1)
    sums, bounds = np.zeros(max(partial.size, 9 * channels), x.dtype), np.empty((kernel_w, 2), np.intp)
    partial[:] = 0
    whole, three = channels // lanes(x) * lanes(x), fits(kernel_h, kernel_w, channels, stride_w, dilation_w, x)
    for kw in range(kernel_w):
        bounds[kw, 0], bounds[kw, 1] = met(out_w, kw * dilation_w - pad_left, stride_w, 0, 1, width)
    slack, pixels = (kernel_h - 1) * down + FAR_DISTANCE, stride_h * stride_w if needs_prefetch(x) else 0
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        of_row, h = row * out_w * channels, oh * stride_h - pad_top
        top, bottom = inside(h, dilation_h, kernel_h, height)
        line, rows = (image * height + h) * width * channels, bottom - top
        if three:
            three_taps.add_products(x, dy, row, kernel_h, geometry, sums)
        for kw in range(0, kernel_w if not three or whole < channels else 0, 3):
            taps = min(3, kernel_w - kw)
            first, last = max(bounds[kw, 0], bounds[kw + taps - 1, 0]), min(bounds[kw, 1], bounds[kw + taps - 1, 1])
            if taps < 3 or last < first:
                last = first
            at, to, inner = line + top * down - pad_left * channels + kw * step, top * of_kernel + kw * channels, last - first
            fetch = line + slack + first * pixels * channels, pixels if kw == 0 else 0
            there = of_row + first * channels
            if not three:
                _add_inner(source, at + first * apart, gradient, there, inner, rows, channels, sums, to, of_kernel, fetch)
            for t in range(taps):
                for k in range(bounds[kw + t, 0], bounds[kw + t, 1]):
                    done = whole if three or first <= k < last else 0
                    if done < channels:
                        here, there = at + k * apart + t * step, of_row + k * channels
                        _add_output(source, here, gradient, there, rows, channels, sums, to + t * channels, of_kernel, done)
        if biased:
            add_rows(gradient, of_row, out_w, channels, channels, sums, kernel_h * of_kernel)
        if (row + 1 - start) * out_w % TERMS < out_w or row + 1 == stop:
            _to_float64(sums, partial)


@precise
def _merge(partials, dweight, dbias):
    """Add up partials (K, KH*KW + 1, C) in order."""
    taps, channels = dweight.shape
    add_partials(partials, dweight.size + dbias.size)
    for tap in range(taps):
        for c in range(channels):
            dweight[tap, c] = partials[0, tap, c]
    for c in range(dbias.size):
        dbias[c] = partials[0, taps, c]


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
