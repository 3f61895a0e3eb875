"""Depthwise convolution on the CPU: vectors of channels, a few neighbouring pixels at a time.

Forward and backward_data are one loop over the rows of the result. With a stride, the pixels of dx whose distance is the stride meet the
same positions of the kernel: each such phase of a row is a run of windows of dy, whose weights lie further apart. There is so little
arithmetic that memory sets the speed: rows that come next are prefetched, and results that leave the caches bypass them.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, inlined, precise, serial
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import bypasses_cache, needs_prefetch, prefetch, store_or_stream
from nbnet.kernels.cpu.reductions import merge_moments, moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_as, load_whole, store, widen, zero
from nbnet.kernels.cpu.window_tiles import make_sums, make_windows
from nbnet.kernels.depthwise import chunk_count

PIXELS = 4  # that share each vector of weights
TERMS = 1024  # products that are added up in T before they are added to float64
four_windows, one_window, nine_sums, three_sums = make_windows(PIXELS), make_windows(1), make_sums(3, 3), make_sums(1, 3)


# ------------------------------------------------------------------------------------------------ one run of windows


@body
def _met(outputs, first, apart, step, taps, limit):
    """The outputs k whose taps first + k * apart + t * step, for t < taps, are all from 0 to limit: the first and the last (exclusive)."""
    low, high = min(0, (taps - 1) * step), max(0, (taps - 1) * step)
    start = max(0, -((first + low) // apart))
    return start, max(start, min(outputs, (limit - 1 - first - high) // apart + 1))


@body
def _inside(first, step, taps, limit):
    """The taps t with 0 <= first + t * step < limit: the first and the last (exclusive)."""
    start, stop = taps, taps
    for t in range(taps - 1, -1, -1):
        if 0 <= first + t * step < limit:
            start = t
        elif start == stop:
            start = stop = t
    return start, stop


@inlined
def _finish(z, slope, target, at, n, bypasses):
    store_or_stream(target, at, n, activated(z, slope) if slope != 1 else z, bypasses)


@inlined
def _run(x, base, rows, down, columns, channels, weight, w_at, w_down, w_step, init, slope, target, to, between, bypasses, ahead):
    """A run of outputs, each the sum over a window of x of x times weight, for all channels.

    x: flat, as all arrays; tap (r, t) of output k is at base + r * down + (first + k * apart + t * step) * channels, in pixels of a row
    of x. columns: number of outputs, first, apart, step, taps, limit (of x's row). rows: the first and the last (exclusive) r.
    Weight (r, t) is at w_at + r * w_down + t * w_step. target: output k goes to + k * between. ahead: rows of x to prefetch, and where the
    first of them is, from base.
    """
    count, first, apart, step, taps, limit = columns
    top, bottom = rows
    start, stop = _met(count, first, apart, step, taps, limit)
    by_four = start + (stop - start) // PIXELS * PIXELS
    for c in range(0, channels, lanes(target)):
        for pixel in range(ahead[0] * limit):
            prefetch(x, base + ahead[1] + pixel * channels + c)
        n = channels - c
        whole = n >= lanes(target)
        inner = by_four if whole else start
        for k in range(start, inner, PIXELS):
            z0 = load_whole(init, c)
            z1, z2, z3 = z0, z0, z0
            if taps > 0:
                at, w = base + top * down + (first + k * apart) * channels + c, w_at + top * w_down + c
                z0, z1, z2, z3 = four_windows(
                    x, at, apart * channels, down, step * channels, weight, w, w_down, w_step, bottom - top, taps, z0
                )
            here = to + k * between + c
            _finish(z0, slope, target, here, n, bypasses)
            _finish(z1, slope, target, here + between, n, bypasses)
            _finish(z2, slope, target, here + 2 * between, n, bypasses)
            _finish(z3, slope, target, here + 3 * between, n, bypasses)
        for j in range(start + count - inner):
            k = j if j < start else j - start + inner
            left, right = (0, taps) if start <= k < stop else _inside(first + k * apart, step, taps, limit)
            z0 = load(init, c, n)
            at, w = base + top * down + (first + k * apart + left * step) * channels + c, w_at + top * w_down + left * w_step + c
            if whole and right > left:
                (z0,) = one_window(x, at, 0, down, step * channels, weight, w, w_down, w_step, bottom - top, right - left, z0)
            else:
                for r in range(bottom - top):
                    for t in range(right - left):
                        z0 = z0 + load(x, at + r * down + t * step * channels, n) * load(weight, w + r * w_down + t * w_step, n)
            _finish(z0, slope, target, to + k * between + c, n, bypasses)


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(part, parts, x, weight, bias, slope, geometry, y, partials):
    """Rows of y, counted over all images."""
    kernel_h, kernel_w, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    height, width, out_h, out_w = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    start, stop = chunks.bounds(part, parts, y.shape[0] * out_h)
    source, flat, target = x.reshape(-1), weight.reshape(-1), y.reshape(-1)
    bypasses = bypasses_cache(y, channels) and partials.shape[0] == 0
    line = width * channels
    columns = out_w, -pad_left, stride_w, dilation_w, kernel_w, width
    ahead = stride_h if needs_prefetch(x) else 0, ((kernel_h - 1) * dilation_h + 1) * line
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        h = oh * stride_h - pad_top
        base, to = (image * height + h) * line, row * out_w * channels
        rows, down = _inside(h, dilation_h, kernel_h, height), dilation_h * line
        w_down = kernel_w * channels
        _run(source, base, rows, down, columns, channels, flat, 0, w_down, channels, bias, slope, target, to, channels, bypasses, ahead)
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
def _phase(index, stride, dilation, size):
    """The outputs whose windows have an input, counted from the padding, and at which positions: the first position, the distance to the
    next one, how many there are; the output of the first, and by how much the next one's is less."""
    position, step = 0, 1
    while step < stride and step * dilation % stride != 0:
        step += 1
    less = step * dilation // stride
    while position < step and (index - position * dilation) % stride != 0:
        position += 1
    count = (size - position + step - 1) // step if position < step and position < size else 0
    return position, step, count, (index - position * dilation) // stride, less


@body
def _backward_data(part, parts, dy, weight, geometry, zeros, dx):
    """Rows of dx, counted over all images."""
    kernel_h, kernel_w, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    height, width, out_h, out_w = dx.shape[1], dx.shape[2], dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dx.shape[0] * height)
    source, flat, target = dy.reshape(-1), weight.reshape(-1), dx.reshape(-1)
    bypasses, line = bypasses_cache(dx, channels), out_w * channels
    ahead = 1 if needs_prefetch(dy) else 0, line
    for row in range(start, stop):
        image, h = divmod(row, height)
        kh, step_h, taps_h, oh, up = _phase(h + pad_top, stride_h, dilation_h, kernel_h)
        base, down, w_down = (image * out_h + oh) * line, -up * line, step_h * kernel_w * channels
        rows = _inside(oh, -up, taps_h, out_h)
        for w in range(min(stride_w, width)):
            kw, step_w, taps_w, ow, back = _phase(w + pad_left, stride_w, dilation_w, kernel_w)
            columns = (width - w + stride_w - 1) // stride_w, ow, 1, -back, taps_w, out_w
            w_at, w_step = (kh * kernel_w + kw) * channels, step_w * channels
            to, between = (row * width + w) * channels, stride_w * channels
            _run(source, base, rows, down, columns, channels, flat, w_at, w_down, w_step, zeros, 1.0, target, to, between, bypasses, ahead)


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


@inlined
def _fetch_rows(x, at, apart, dy, dy_at, channels, count):
    """Prefetch a vector of `count` pixels of a row of dy, and of the pixels of x between theirs."""
    for k in range(count):
        prefetch(dy, dy_at + k * channels)
        for pixel in range(at + k * apart, at + (k + 1) * apart, channels):
            prefetch(x, pixel)


@inlined
def _at_edges(x, line, kw, taps, step, apart, dy, of_row, channels, n, bounds, first, last, sums, to):
    """Add to the sums of `taps` columns of the kernel from kw on, one by one, the products of the outputs whose input is inside, but for
    those from first to last. bounds: for each column the first and the last (exclusive) such output."""
    for t in range(taps):
        at, here, start, stop = line + t * step, to + t * channels, bounds[kw + t, 0], bounds[kw + t, 1]
        for k in range(start, min(first, stop)):
            store(sums, here, n, load(sums, here, n) + load(x, at + k * apart, n) * load(dy, of_row + k * channels, n))
        for k in range(max(last, start), stop):
            store(sums, here, n, load(sums, here, n) + load(x, at + k * apart, n) * load(dy, of_row + k * channels, n))


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
    source, gradient, partial = x.reshape(-1), dy.reshape(-1), partials[part].reshape(-1)
    sums, bounds = np.zeros(partial.size, x.dtype), np.empty((kernel_w, 2), np.intp)
    partial[:] = 0
    for kw in range(kernel_w):
        bounds[kw, 0], bounds[kw, 1] = _met(out_w, kw * dilation_w - pad_left, stride_w, 0, 1, width)
    apart, step, down, of_kernel = stride_w * channels, dilation_w * channels, dilation_h * width * channels, kernel_w * channels
    ahead, prefetches = ((kernel_h - 1) * dilation_h + 1) * width * channels, needs_prefetch(x)
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        of_row, h = row * out_w * channels, oh * stride_h - pad_top
        top, bottom = _inside(h, dilation_h, kernel_h, height)
        for c in range(0, channels, lanes(x)):
            n, line = channels - c, ((image * height + h) * width - pad_left) * channels + c
            if prefetches:
                for r in range(stride_h):
                    following = line + ahead + (r * width + pad_left) * channels
                    _fetch_rows(source, following, apart, gradient, of_row + out_w * channels + c, channels, out_w)
            for kw in range(0, kernel_w, 3):
                taps = min(3, kernel_w - kw)
                first, last = max(bounds[kw, 0], bounds[kw + taps - 1, 0]), min(bounds[kw, 1], bounds[kw + taps - 1, 1])
                if taps < 3 or n < lanes(x) or last < first:
                    last = first
                dy_at, kh = of_row + first * channels + c, top
                while kh < bottom:
                    at, to, rows = line + kh * down + kw * step, kh * of_kernel + kw * channels + c, 3 if bottom - kh >= 3 else 1
                    inner, count = at + first * apart, last - first
                    if count > 0 and rows == 3:
                        nine_sums(source, inner, down, step, apart, gradient, dy_at, channels, count, sums, to, of_kernel, channels)
                    elif count > 0:
                        three_sums(source, inner, 0, step, apart, gradient, dy_at, channels, count, sums, to, 0, channels)
                    for r in range(rows):
                        here, below = at + r * down, to + r * of_kernel
                        _at_edges(source, here, kw, taps, step, apart, gradient, of_row + c, channels, n, bounds, first, last, sums, below)
                    kh += rows
            if biased:
                total = zero(load(gradient, c, 0))
                for pixel in range(out_w):
                    total = total + load(gradient, of_row + pixel * channels + c, n)
                at = kernel_h * of_kernel + c
                store(sums, at, n, load(sums, at, n) + total)
        if (row + 1 - start) * out_w % TERMS < out_w or row + 1 == stop:
            _to_float64(sums, partial)


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
