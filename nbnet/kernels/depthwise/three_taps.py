"""Depthwise convolution with kernels of three columns and up to three rows: along rows of pixels, for one vector of channels.

The weights, and the sums of pixels whose windows overlap, stay in registers; each pixel is loaded once for each row of the kernel. A column
is a tuple of three vectors, one for each row of the kernel. The sum over a column is added to a result as a whole, so that results do not
wait for each other's multiplications.

A plan says for each row of the result which rows of the source the three rows of the kernel meet (BEGINS: where they begin; FIRST and LAST,
exclusive: those inside the image), which rows of the kernel these are (AT: where the first one begins, DOWN: the distance to the next one),
where the result begins (TO), and where the source that is needed soon begins (AHEAD). Rows outside the image count as zeros, in the source
and in the kernel; pixels to the left and to the right of it are left out.
"""

import numpy as np
from numba.extending import register_jitable

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, inlined, precise
from nbnet.kernels.cpu.epilogue import activate_rows
from nbnet.kernels.cpu.prefetch import FAR_DISTANCE, bypasses_cache, prefetch_far, store_or_stream
from nbnet.kernels.cpu.reductions import add_rows, moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load, load_as, load_whole, splat_as, store, store_whole, where, widen, zero
from nbnet.kernels.depthwise.runs import inside, phase

BEGINS, FIRST, LAST, AT, DOWN, TO, AHEAD, ENTRIES = 0, 3, 4, 5, 6, 7, 8, 9
TERMS = 1024  # products that are added up in T before they are added to float64
SMALL = 1 << 19  # bytes of an array that is not prefetched
TOGETHER = 8192  # numbers of the rows that are gone through for one vector of channels, before the next vector


@register_jitable
def fits(kernel_h, kernel_w, channels, stride_w, dilation_w, like):
    """Whether this module has a loop for such a convolution."""
    return kernel_h <= 3 and kernel_w == 3 and stride_w <= 2 and dilation_w == 1 and channels >= lanes(like)


@inlined
def _plan(plan, i, start, first, apart, count, limit, line):
    """Entries of row i. Rows first + r * apart with r < count, of an image of `limit` rows, `line` numbers each, that begins at `start`."""
    low, high = inside(first, apart, count, limit)
    plan[i, FIRST], plan[i, LAST] = low, high
    for r in range(3):  # of those outside, the nearest one inside, so that it can be loaded
        nearest = first + min(max(r, low), high - 1) * apart if low < high else 0
        plan[i, BEGINS + r] = start + nearest * line


@inlined
def _row(plan, i, c, like):
    """Where the three rows of the source begin for the channels from c on, and a mask for each, whether it is inside."""
    nil, one, low, high = zero(like), splat_as(1.0, like), plan[i, FIRST], plan[i, LAST]
    masks = (
        (one if low <= 0 < high else nil) > nil,
        (one if low <= 1 < high else nil) > nil,
        (one if low <= 2 < high else nil) > nil,
    )
    return (plan[i, BEGINS] + c, plan[i, BEGINS + 1] + c, plan[i, BEGINS + 2] + c), masks


@inlined
def _column(x, at, row):
    """The vectors at `at` of each row."""
    begins, masks = row
    a, b, c = load_whole(x, begins[0] + at), load_whole(x, begins[1] + at), load_whole(x, begins[2] + at)
    nil = zero(a)
    return where(masks[0], a, nil), where(masks[1], b, nil), where(masks[2], c, nil)


@inlined
def _kernel(weight, at, down, channels, masks):
    """Its three columns, for the vector of channels that begins at `at`. down: the distance between its rows."""
    left = weight.size - at
    columns = (0, down if down < left else 0, 2 * down if 2 * down < left else 0), masks
    return _column(weight, at, columns), _column(weight, at + channels, columns), _column(weight, at + 2 * channels, columns)


@precise
def _add(z, column, taps):
    return z + fma(column[2], taps[2], fma(column[1], taps[1], column[0] * taps[0]))


# --------------------------------------------------------------------------------------------------- some rows

# Each for the channels from c on, and rows `some` (the first and the last, exclusive) of the plan. spread: the pixels in a row of x and
# of y, the first pixel of x, and where to prefetch. result: init, y, and whether it bypasses the caches.


@body
def _along(x, plan, some, c, channels, weight, spread, result, fetches):
    """y[k] = init + sum_t x[first + k + t] * weight[t]."""
    (width, count, first, ahead), (init, y, bypasses) = spread, result
    for i in range(*some):
        row = _row(plan, i, c, init)
        left, middle, right = _kernel(weight, plan[i, AT] + c, plan[i, DOWN], channels, row[1])
        to = plan[i, TO] + c
        z = following = later = init  # of the pixels whose last, middle and first column this one is
        for j in range(first, first + count + 2):
            if fetches:
                prefetch_far(x, ahead)
                ahead += lanes(x)
            if 0 <= j < width:
                column = _column(x, j * channels, row)
                z, following, later = _add(z, column, right), _add(following, column, middle), _add(init, column, left)
            if j >= first + 2:
                store_or_stream(y, to, lanes(x), z, bypasses)
                to += channels
            z, following, later = following, later, init


@body
def _along_two(x, plan, some, c, channels, weight, spread, result, fetches):
    """y[k] = init + sum_t x[first + 2 * k + t] * weight[t]."""
    (width, count, first, ahead), (init, y, bypasses) = spread, result
    for i in range(*some):
        row = _row(plan, i, c, init)
        left, middle, right = _kernel(weight, plan[i, AT] + c, plan[i, DOWN], channels, row[1])
        to = plan[i, TO] + c
        z = _add(init, _column(x, first * channels, row), left) if 0 <= first < width else init
        for j in range(first + 1, first + 1 + 2 * count, 2):
            if fetches:
                for line in range(4):
                    prefetch_far(x, ahead + line * lanes(x))
                ahead += 4 * lanes(x)
            following = init
            if 0 <= j < width:
                z = _add(z, _column(x, j * channels, row), middle)
            if 0 <= j + 1 < width:
                column = _column(x, (j + 1) * channels, row)
                z, following = _add(z, column, right), _add(init, column, left)
            store_or_stream(y, to, lanes(x), z, bypasses)
            to += channels
            z = following


@body
def _along_half(x, plan, some, c, channels, weight, spread, result, fetches):
    """y[2 * k - first + t] = init + the sum over k of x[k] * weight[t]."""
    (width, count, first, ahead), (init, y, bypasses) = spread, result
    start = first // 2
    for i in range(*some):
        row = _row(plan, i, c, init)
        left, middle, right = _kernel(weight, plan[i, AT] + c, plan[i, DOWN], channels, row[1])
        at, to = 2 * start - first, plan[i, TO] + c  # -1 or 0
        z = _add(init, _column(x, (start - 1) * channels, row), right) if 0 < start <= width else init
        for k in range(start, start + (count - at + 1) // 2):
            if fetches:
                prefetch_far(x, ahead)
                ahead += lanes(x)
            following = later = init
            if k < width:
                column = _column(x, k * channels, row)
                z, following, later = _add(z, column, left), _add(init, column, middle), _add(init, column, right)
            if at >= 0:
                store_or_stream(y, to + at * channels, lanes(x), z, bypasses)
            if at + 1 < count:
                store_or_stream(y, to + (at + 1) * channels, lanes(x), following, bypasses)
            z, at = later, at + 2


# ---------------------------------------------------------------------------------------------------- forward


@body
def forward(part, parts, x, weight, bias, slope, geometry, y, partials):
    """Rows of y, counted over all images."""
    kernel_h, _, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, _ = geometry
    height, width, out_h, out_w = x.shape[1], x.shape[2], y.shape[1], y.shape[2]
    start, stop = chunks.bounds(part, parts, y.shape[0] * out_h)
    source, weights, out, line = x.reshape(-1), weight.reshape(-1), y.reshape(-1), width * channels
    plan = np.empty((stop - start, ENTRIES), np.intp)
    for i in range(stop - start):
        image, oh = divmod(start + i, out_h)
        h = oh * stride_h - pad_top
        _plan(plan, i, image * height * line, h, dilation_h, kernel_h, height, line)
        plan[i, AT], plan[i, DOWN], plan[i, TO] = 0, 3 * channels, (start + i) * out_w * channels
        plan[i, AHEAD] = (image * height + h + kernel_h * dilation_h) * line + FAR_DISTANCE
    bypasses, fetches = bypasses_cache(y, channels) and partials.shape[0] == 0 and slope == 1, x.nbytes > SMALL
    step = max(1, TOGETHER // (line * stride_h))
    for i in range(0, stop - start, step):
        some, rows = (i, min(i + step, stop - start)), min(step, stop - start - i)
        for whole in range(0, channels, lanes(x)):
            c = min(whole, channels - lanes(x))
            spread = width, out_w, -pad_left, plan[i, AHEAD] + ((rows - 1) * channels + rows * whole) * stride_h * width
            result = load_whole(bias, c), out, bypasses
            if stride_w == 1:
                _along(source, plan, some, c, channels, weights, spread, result, fetches)
            else:
                _along_two(source, plan, some, c, channels, weights, spread, result, fetches)
        if slope != 1:
            activate_rows(out, plan[i, TO], 1, 0, rows * out_w * channels, slope)
    if partials.shape[0] > 0:
        moments_of_rows(y.reshape(-1, channels), None, start * out_w, stop * out_w, np.intp(0), channels, partials[part])


# ---------------------------------------------------------------------------------------------- backward_data


@body
def backward_data(part, parts, dy, weight, geometry, zeros, dx):
    """Rows of dx, counted over all images. With stride 1, this is a forward pass with the kernel turned around, dy in the place of x."""
    kernel_h, _, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, _ = geometry
    height, width, out_h, out_w = dx.shape[1], dx.shape[2], dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dx.shape[0] * height)
    source, out, line = dy.reshape(-1), dx.reshape(-1), out_w * channels
    weights = weight.reshape(-1) if stride_w > 1 else weight[:, ::-1].copy().reshape(-1)
    plan = np.empty((stop - start, ENTRIES), np.intp)
    for i in range(stop - start):
        image, h = divmod(start + i, height)
        kh, step, taps, oh, up = phase(h + pad_top, stride_h, dilation_h, kernel_h)
        _plan(plan, i, image * out_h * line, oh, -up, taps, out_h, line)
        plan[i, AT], plan[i, DOWN], plan[i, TO] = kh * 3 * channels, step * 3 * channels, (start + i) * width * channels
        plan[i, AHEAD] = (image * out_h + oh) * line + FAR_DISTANCE
    bypasses, fetches = bypasses_cache(dx, channels), dy.nbytes > SMALL
    step = max(1, TOGETHER // (width * channels))
    for i in range(0, stop - start, step):
        some, rows = (i, min(i + step, stop - start)), min(step, stop - start - i)
        for whole in range(0, channels, lanes(dy)):
            c, ahead = min(whole, channels - lanes(dy)), plan[i, AHEAD] + ((rows - 1) * channels + rows * whole) * out_w
            result = load_whole(zeros, c), out, bypasses
            if stride_w == 1:
                _along(source, plan, some, c, channels, weights, (out_w, width, pad_left - 2, ahead), result, fetches)
            else:
                _along_half(source, plan, some, c, channels, weights, (out_w, width, pad_left, ahead), result, fetches)


# ------------------------------------------------------------------------------------------- backward_weights


@precise
def _product(total, column, gradient):
    return fma(column[0], gradient, total[0]), fma(column[1], gradient, total[1]), fma(column[2], gradient, total[2])


@inlined
def _store(sums, at, apart, low, high, left, middle, right):
    """Store the columns of the kernel, `apart` from each other, in its rows low to high."""
    for t, column in enumerate((left, middle, right)):
        if low <= 0 < high:
            store_whole(sums, at + t * apart, column[0])
        if low <= 1 < high:
            store_whole(sums, at + (3 + t) * apart, column[1])
        if low <= 2 < high:
            store_whole(sums, at + (6 + t) * apart, column[2])


@body
def _sums_along(x, plan, some, c, channels, dy, spread, sums, at, fetches):
    """sums[t] += the sum over k < count of x[first + k + t] * dy[k]."""
    (width, count, first, ahead, dy_ahead), apart = spread, sums.size // 9
    for i in range(*some):
        row, of_row = _row(plan, i, c, load_whole(sums, at)), plan[i, TO] + c
        left, middle, right = _kernel(sums, at, 3 * apart, apart, row[1])
        for j in range(max(first, 0), min(width, first + count + 2)):
            if fetches:
                prefetch_far(x, ahead)
                prefetch_far(dy, dy_ahead)
                ahead, dy_ahead = ahead + lanes(x), dy_ahead + lanes(x)
            column, k = _column(x, j * channels, row), j - first
            if k < count:
                left = _product(left, column, load_whole(dy, of_row + k * channels))
            if 0 < k <= count:
                middle = _product(middle, column, load_whole(dy, of_row + (k - 1) * channels))
            if k > 1:
                right = _product(right, column, load_whole(dy, of_row + (k - 2) * channels))
        _store(sums, at, apart, plan[i, FIRST], plan[i, LAST], left, middle, right)


@body
def _sums_along_two(x, plan, some, c, channels, dy, spread, sums, at, fetches):
    """sums[t] += the sum over k < count of x[first + 2 * k + t] * dy[k]."""
    (width, count, first, ahead, dy_ahead), apart = spread, sums.size // 9
    for i in range(*some):
        row, of_row = _row(plan, i, c, load_whole(sums, at)), plan[i, TO] + c
        left, middle, right = _kernel(sums, at, 3 * apart, apart, row[1])
        for k in range(count):
            if fetches:
                for line in range(4):
                    prefetch_far(x, ahead + line * lanes(x))
                prefetch_far(dy, dy_ahead)
                ahead, dy_ahead = ahead + 4 * lanes(x), dy_ahead + lanes(x)
            gradient, j = load_whole(dy, of_row + k * channels), first + 2 * k
            if 0 <= j < width:
                left = _product(left, _column(x, j * channels, row), gradient)
            if 0 <= j + 1 < width:
                middle = _product(middle, _column(x, (j + 1) * channels, row), gradient)
            if 0 <= j + 2 < width:
                right = _product(right, _column(x, (j + 2) * channels, row), gradient)
        _store(sums, at, apart, plan[i, FIRST], plan[i, LAST], left, middle, right)


@body
def _to_float64(sums, partial, taps, channels):
    """partial[tap, c] += sums, which become 0. The last vector of each tap has the last channels, some of them for the second time."""
    apart = sums.size // 9
    for tap in range(taps):
        for c in range(0, channels, lanes(sums)):
            n, to = min(lanes(sums), channels - c), tap * channels + c
            value = load(sums, tap * apart + c + lanes(sums) - n, n)
            wide = widen(value)
            store(partial, to, n, load_as(partial, to, n, wide) + wide)
            store_whole(sums, tap * apart + c, zero(value))


@body
def backward_weights(part, parts, x, dy, kernel, geometry, biased, partials):
    """Rows of dy, counted over all images. kernel: KH, KW."""
    kernel_h, _ = kernel
    stride_h, stride_w, pad_top, pad_left, dilation_h, _ = geometry
    _, height, width, channels = x.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dy.shape[0] * out_h)
    source, gradient, partial, line = x.reshape(-1), dy.reshape(-1), partials[part].reshape(-1), width * channels
    sums, of_bias = np.zeros(9 * ((channels + lanes(x) - 1) // lanes(x) * lanes(x)), x.dtype), np.zeros(channels, x.dtype)
    partial[:] = 0
    plan = np.empty((stop - start, ENTRIES), np.intp)
    for i in range(stop - start):
        image, oh = divmod(start + i, out_h)
        h = oh * stride_h - pad_top
        _plan(plan, i, image * height * line, h, dilation_h, kernel_h, height, line)
        plan[i, TO] = (start + i) * out_w * channels
        plan[i, AHEAD] = (image * height + h + kernel_h * dilation_h) * line + FAR_DISTANCE
    fetches, step, terms = x.nbytes > SMALL, max(1, TOGETHER // (line * stride_h)), 0
    for i in range(0, stop - start, step):
        some, rows = (i, min(i + step, stop - start)), min(step, stop - start - i)
        for at in range(0, channels, lanes(x)):
            c, dy_ahead = min(at, channels - lanes(x)), plan[i, TO] + rows * (at + channels) * out_w + FAR_DISTANCE
            spread = width, out_w, -pad_left, plan[i, AHEAD] + ((rows - 1) * channels + rows * at) * stride_h * width, dy_ahead
            if stride_w == 1:
                _sums_along(source, plan, some, c, channels, gradient, spread, sums, at, fetches)
            else:
                _sums_along_two(source, plan, some, c, channels, gradient, spread, sums, at, fetches)
        if biased:
            add_rows(gradient, plan[i, TO], rows * out_w, channels, channels, of_bias, 0)
        terms += rows * out_w
        if terms + step * out_w > TERMS or some[1] == stop - start:
            _to_float64(sums, partial, 3 * kernel_h, channels)
            for c in range(channels):
                partial[3 * kernel_h * channels + c] += of_bias[c]
                of_bias[c] = 0
            terms = 0
