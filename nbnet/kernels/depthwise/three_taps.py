"""Depthwise convolution with kernels of three columns and up to three rows: along one row of pixels, for one vector of channels.

The weights, and the sums of pixels whose windows overlap, stay in registers; each pixel is loaded once for each row of the kernel. A column
is a tuple of three vectors, one for each row of the kernel. The sum over a column is added to a result as a whole, so that results do not
wait for each other's multiplications.

`rows` says which rows of an array the three rows of the kernel meet: where each begins, and a mask for each, whether it is inside the
image. Rows outside count as zeros, in x and in the kernel; pixels to the left and to the right of the image are left out.
"""

import numpy as np
from numba.extending import register_jitable

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, inlined, precise
from nbnet.kernels.cpu.epilogue import activate_rows
from nbnet.kernels.cpu.prefetch import FAR_DISTANCE, bypasses_cache, prefetch_far, store_or_stream
from nbnet.kernels.cpu.reductions import moments_of_rows
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma
from nbnet.kernels.cpu.vector import load_whole, splat_as, store_whole, where, zero
from nbnet.kernels.depthwise.runs import inside, phase

SMALL = 1 << 19  # bytes of an array that is not prefetched


@register_jitable
def fits(kernel_h, kernel_w, channels, stride_w, dilation_w, like):
    """Whether this module has a loop for such a convolution."""
    return kernel_h <= 3 and kernel_w == 3 and stride_w <= 2 and dilation_w == 1 and channels >= lanes(like)


@inlined
def _rows(start, first, apart, valid, line, like):
    """Rows first + r * apart, `line` numbers long, of an image that begins at `start`. valid: the first and the last (exclusive) r that are
    inside; the others are at a row that is inside, so that they can be loaded."""
    nil, one = zero(like), splat_as(1.0, like)
    low, high = valid
    last = max(low, high - 1)
    begins = (
        start + (first + min(max(0, low), last) * apart) * line if low < high else 0,
        start + (first + min(max(1, low), last) * apart) * line if low < high else 0,
        start + (first + min(max(2, low), last) * apart) * line if low < high else 0,
    )
    masks = (
        (one if low <= 0 < high else nil) > nil,
        (one if low <= 1 < high else nil) > nil,
        (one if low <= 2 < high else nil) > nil,
    )
    return begins, masks


@inlined
def _column(x, at, rows):
    """The vectors at `at` of each row."""
    begins, masks = rows
    a, b, c = load_whole(x, begins[0] + at), load_whole(x, begins[1] + at), load_whole(x, begins[2] + at)
    nil = zero(a)
    return where(masks[0], a, nil), where(masks[1], b, nil), where(masks[2], c, nil)


@inlined
def _kernel(weight, at, down, channels, rows):
    """Its three columns, for the vector of channels that begins at `at`. down: the distance between its rows."""
    below, masks = (0, down if down < weight.size - at else 0, 2 * down if 2 * down < weight.size - at else 0), rows[1]
    columns = below, masks
    return _column(weight, at, columns), _column(weight, at + channels, columns), _column(weight, at + 2 * channels, columns)


@precise
def _add(z, column, taps):
    return z + fma(column[2], taps[2], fma(column[1], taps[1], column[0] * taps[0]))


# ---------------------------------------------------------------------------------------------------- one row


@body
def _along(x, rows, channels, kernel, init, first, width, y, to, count, bypasses, ahead, fetches):
    """y[k] = init + sum_t x[first + k + t] * kernel[t], for k < count."""
    left, middle, right = kernel
    z = following = later = init  # of the pixels whose last, middle and first column this one is
    for j in range(first, first + count + 2):
        if fetches:
            prefetch_far(x, ahead)
            ahead += lanes(x)
        if 0 <= j < width:
            column = _column(x, j * channels, rows)
            z, following, later = _add(z, column, right), _add(following, column, middle), _add(init, column, left)
        if j >= first + 2:
            store_or_stream(y, to, lanes(x), z, bypasses)
            to += channels
        z, following, later = following, later, init


@body
def _along_two(x, rows, channels, kernel, init, first, width, y, to, count, bypasses, ahead, fetches):
    """y[k] = init + sum_t x[first + 2 * k + t] * kernel[t], for k < count."""
    left, middle, right = kernel
    z = _add(init, _column(x, first * channels, rows), left) if 0 <= first < width else init
    for j in range(first + 1, first + 1 + 2 * count, 2):
        if fetches:
            for i in range(4):
                prefetch_far(x, ahead + i * lanes(x))
            ahead += 4 * lanes(x)
        following = init
        if 0 <= j < width:
            z = _add(z, _column(x, j * channels, rows), middle)
        if 0 <= j + 1 < width:
            column = _column(x, (j + 1) * channels, rows)
            z, following = _add(z, column, right), _add(init, column, left)
        store_or_stream(y, to, lanes(x), z, bypasses)
        to += channels
        z = following


@body
def _along_half(x, rows, channels, kernel, init, first, width, y, to, at, count, bypasses, ahead, fetches):
    """y[at + 2 * (k - first) + t] = init + the sum over k of x[k] * kernel[t], for numbers of y from 0 to count; at is 0 or -1."""
    left, middle, right = kernel
    z = _add(init, _column(x, (first - 1) * channels, rows), right) if 0 < first <= width else init
    for k in range(first, first + (count - at + 1) // 2):
        if fetches:
            prefetch_far(x, ahead)
            ahead += lanes(x)
        following = later = init
        if k < width:
            column = _column(x, k * channels, rows)
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
    bypasses, fetches = bypasses_cache(y, channels) and partials.shape[0] == 0 and slope == 1, x.nbytes > SMALL
    for row in range(start, stop):
        image, oh = divmod(row, out_h)
        h, to = oh * stride_h - pad_top, row * out_w * channels
        valid, ahead = inside(h, dilation_h, kernel_h, height), (image * height + h + kernel_h * dilation_h) * line + FAR_DISTANCE
        for whole in range(0, channels, lanes(x)):
            c, here = min(whole, channels - lanes(x)), ahead + whole * stride_h * width
            init = load_whole(bias, c)
            rows = _rows(image * height * line + c, h, dilation_h, valid, line, init)
            kernel = _kernel(weights, c, 3 * channels, channels, rows)
            if stride_w == 1:
                _along(source, rows, channels, kernel, init, -pad_left, width, out, to + c, out_w, bypasses, here, fetches)
            else:
                _along_two(source, rows, channels, kernel, init, -pad_left, width, out, to + c, out_w, bypasses, here, fetches)
        if slope != 1:
            activate_rows(out, to, 1, 0, out_w * channels, slope)
    if partials.shape[0] > 0:
        moments_of_rows(y.reshape(-1, channels), None, start * out_w, stop * out_w, np.intp(0), channels, partials[part])


# ---------------------------------------------------------------------------------------------- backward_data


@body
def backward_data(part, parts, dy, weight, geometry, zeros, dx):
    """Rows of dx, counted over all images."""
    kernel_h, _, channels = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, _ = geometry
    height, width, out_h, out_w = dx.shape[1], dx.shape[2], dy.shape[1], dy.shape[2]
    start, stop = chunks.bounds(part, parts, dx.shape[0] * height)
    source, weights, out, line = dy.reshape(-1), weight.reshape(-1), dx.reshape(-1), out_w * channels
    bypasses, fetches = bypasses_cache(dx, channels), dy.nbytes > SMALL
    first = pad_left // 2
    for row in range(start, stop):
        image, h = divmod(row, height)
        kh, step, taps, oh, up = phase(h + pad_top, stride_h, dilation_h, kernel_h)
        valid, ahead, to = inside(oh, -up, taps, out_h), (image * out_h + oh) * line + FAR_DISTANCE, row * width * channels
        for whole in range(0, channels, lanes(dy)):
            c, here = min(whole, channels - lanes(dy)), ahead + whole * out_w
            init = load_whole(zeros, c)
            rows = _rows(image * out_h * line + c, oh, -up, valid, line, init)
            kernel = _kernel(weights, kh * 3 * channels + c, step * 3 * channels, channels, rows)
            if stride_w == 1:
                kernel = kernel[2], kernel[1], kernel[0]
                _along(source, rows, channels, kernel, init, pad_left - 2, out_w, out, to + c, width, bypasses, here, fetches)
            else:
                at = 2 * first - pad_left
                _along_half(source, rows, channels, kernel, init, first, out_w, out, to + c, at, width, bypasses, here, fetches)


# ------------------------------------------------------------------------------------------- backward_weights


@precise
def _product(total, column, gradient):
    return fma(column[0], gradient, total[0]), fma(column[1], gradient, total[1]), fma(column[2], gradient, total[2])


@body
def _sums_along(x, rows, channels, dy, at, first, width, count, sums, ahead, dy_ahead, fetches):
    """sums[t] += the sum over k < count of x[first + k + t] * dy[k]."""
    left, middle, right = sums
    for j in range(max(first, 0), min(width, first + count + 2)):
        if fetches:
            prefetch_far(x, ahead)
            prefetch_far(dy, dy_ahead)
            ahead, dy_ahead = ahead + lanes(x), dy_ahead + lanes(x)
        column, k = _column(x, j * channels, rows), j - first
        here = at + k * channels
        if k < count:
            left = _product(left, column, load_whole(dy, here))
        if 0 < k <= count:
            middle = _product(middle, column, load_whole(dy, here - channels))
        if k > 1:
            right = _product(right, column, load_whole(dy, here - 2 * channels))
    return left, middle, right


@body
def _sums_along_two(x, rows, channels, dy, at, first, width, count, sums, ahead, dy_ahead, fetches):
    """sums[t] += the sum over k < count of x[first + 2 * k + t] * dy[k]."""
    left, middle, right = sums
    for k in range(count):
        if fetches:
            for i in range(4):
                prefetch_far(x, ahead + i * lanes(x))
            prefetch_far(dy, dy_ahead)
            ahead, dy_ahead = ahead + 4 * lanes(x), dy_ahead + lanes(x)
        gradient, j = load_whole(dy, at + k * channels), first + 2 * k
        if 0 <= j < width:
            left = _product(left, _column(x, j * channels, rows), gradient)
        if 0 <= j + 1 < width:
            middle = _product(middle, _column(x, (j + 1) * channels, rows), gradient)
        if 0 <= j + 2 < width:
            right = _product(right, _column(x, (j + 2) * channels, rows), gradient)
    return left, middle, right


@body
def add_products(x, dy, row, kernel_h, geometry, sums):
    """Add the products of one row of dy, counted over all images, to sums (KH, 3, C), for the channels of whole vectors."""
    stride_h, stride_w, pad_top, pad_left, dilation_h, _ = geometry
    _, height, width, channels = x.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    image, oh = divmod(row, out_h)
    h, line = oh * stride_h - pad_top, width * channels
    low, high = inside(h, dilation_h, kernel_h, height)
    source, gradient, fetches = x.reshape(-1), dy.reshape(-1), x.nbytes > SMALL
    ahead = (image * height + h + kernel_h * dilation_h) * line + FAR_DISTANCE
    for c in range(0, channels - lanes(x) + 1, lanes(x)):
        rows = _rows(image * height * line + c, h, dilation_h, (low, high), line, load_whole(sums, c))
        at, here, totals = row * out_w * channels, ahead + c * stride_h * width, _kernel(sums, c, 3 * channels, channels, rows)
        there = at + FAR_DISTANCE + c * out_w
        if stride_w == 1:
            totals = _sums_along(source, rows, channels, gradient, at + c, -pad_left, width, out_w, totals, here, there, fetches)
        else:
            totals = _sums_along_two(source, rows, channels, gradient, at + c, -pad_left, width, out_w, totals, here, there, fetches)
        for t in range(3):
            to, (a, b, d) = c + t * channels, totals[t]
            if low <= 0 < high:
                store_whole(sums, to, a)
            if low <= 1 < high:
                store_whole(sums, to + 3 * channels, b)
            if low <= 2 < high:
                store_whole(sums, to + 6 * channels, d)
