"""Convolution by register tiles over strips of padded rows, and single tiles of it where minimal filtering would not be precise."""

from nbnet.kernels.conv2d import IN_CACHES, extent, strip_rows
from nbnet.kernels.cpu.compile import body, inlined
from nbnet.kernels.cpu.epilogue import activate_rows
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.prefetch import LINE, prefetch_to_write
from nbnet.kernels.cpu.reductions import take_sums
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_whole, store_whole, zero

PIXELS_AT_ONCE = 64  # of images that are read where they are: the results after them are prefetched meanwhile
BLOCK = 4096  # target size of a block of dy in numbers: it is read once per few weights, and stays in the level-1 cache


@body
def _zeros(strip, at, count):
    for i in range(at, at + count, lanes(strip)):
        store_whole(strip, i, zero(load_whole(strip, i)))


@body
def fill(x, image, top, rows, left, row, strip):
    """Copy `rows` rows of an image, from row `top` and column `left` on, zeros outside of it, into strip; `row` numbers in each.

    Whole vectors are stored from left to right, and each overwrites what the previous one wrote beyond its part; the strip has space for
    that at its end.
    """
    height, width, inputs = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(-1)
    columns = row // inputs
    first = min(max(0, -left), columns) * inputs
    last = max(first, min(columns, width - left) * inputs)
    for r in range(rows):
        at, h = r * row, top + r
        if h < 0 or h >= height:
            _zeros(strip, at, row)
            continue
        offset = ((image * height + h) * width + left) * inputs
        _zeros(strip, at, first)
        for i in range(first, last, lanes(x)):
            store_whole(strip, at + i, load(flat, offset + i, last - i))
        _zeros(strip, at + last, row - last)


@body
def _taps(kernel_h, kernel_w, dilation_h, dilation_w, row, inputs, groups):
    """The nested runs of numbers that a patch is read in from a strip: loops, their distance; outer, its distance; inner, of distance 1.

    A row of a kernel is one run, unless gaps are between its pixels or between the channels of a group.
    """
    if groups == 1 and dilation_w == 1:
        return 1, 0, kernel_h, dilation_h * row, kernel_w * inputs
    return kernel_h, dilation_h * row, kernel_w, dilation_w * inputs, inputs // groups


@inlined
def _products(pixels, source, at, a_r, taps, weight, groups, channels, columns, init, c, c_at):
    """c[pixel, :] = init + patch of the pixel @ weight, for neighbouring pixels. channels, columns: of a group, of x and y."""
    loops, step, outer, a_outer, inner = taps
    outputs = groups * columns
    b_outer = inner * outputs
    for group in range(groups):
        a, to = at + group * channels, group * columns
        here = c_at + to
        gemm(pixels, source, a, a_outer, a_r, 1, weight, to, b_outer, outputs, outer, inner, init, to, 0, c, here, outputs, columns)
        for k in range(1, loops):
            a, b = a + step, to + k * outer * b_outer
            gemm(pixels, source, a, a_outer, a_r, 1, weight, b, b_outer, outputs, outer, inner, c, here, outputs, c, here, outputs, columns)


@body
def _prefetch_to_write(c, at, count):
    for i in range(at, at + count, LINE // c.itemsize):
        prefetch_to_write(c, i)


@body
def pointwise(x, y, kernel, geometry):
    """Whether each pixel of y depends on the same pixel of x alone: x needs no copy with padding then."""
    stride_h, stride_w, pad_top, pad_left, _, _ = geometry
    same = x.shape[1] == y.shape[1] and x.shape[2] == y.shape[2]
    return same and kernel[0] * kernel[1] * stride_h * stride_w == 1 and pad_top == 0 and pad_left == 0


@inlined
def convolve(x, weight, kernel, groups, init, geometry, rows, start, stop, strip, y, slope=1.0):
    """Strips of `rows` rows start to stop of a convolution: y = act(init + patches of x @ weight (D, O)).

    kernel: KH, KW. geometry: stride, padding above and to the left, and dilation, each of both axes.
    """
    (kernel_h, kernel_w), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w) = kernel, geometry
    inputs, out_h, out_w, outputs = x.shape[3], y.shape[1], y.shape[2], y.shape[3]
    _, row = strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs)
    per_image = (out_h + rows - 1) // rows
    b, c = weight.reshape(-1), y.reshape(-1)
    taps, columns, channels = _taps(kernel_h, kernel_w, dilation_h, dilation_w, row, inputs, groups), outputs // groups, inputs // groups
    size, prefetches = out_w * outputs, y.nbytes > IN_CACHES
    for unit in range(start, stop):
        image, first = unit // per_image, unit % per_image * rows
        count = min(rows, out_h - first)
        filled = (count - 1) * stride_h + extent(kernel_h, dilation_h)
        fill(x, image, first * stride_h - pad_top, filled, -pad_left, row, strip)
        for r in range(count):
            c_at = (image * out_h + first + r) * size
            if prefetches:
                _prefetch_to_write(c, c_at + size, size)
            _products(out_w, strip, r * stride_h * row, stride_w * inputs, taps, b, groups, channels, columns, init, c, c_at)
            if slope != 1:
                activate_rows(c, c_at, 1, 0, size, slope)


@inlined
def convolve_pointwise(x, weight, groups, init, rows, start, stop, y, slope=1.0):
    """The same for a convolution that is `pointwise`."""
    inputs, out_h, out_w, outputs = x.shape[3], y.shape[1], y.shape[2], y.shape[3]
    per_image = (out_h + rows - 1) // rows
    a, b, c = x.reshape(-1), weight.reshape(-1), y.reshape(-1)
    columns, channels, prefetches = outputs // groups, inputs // groups, y.nbytes > IN_CACHES
    for unit in range(start, stop):
        image, first = unit // per_image, unit % per_image * rows
        pixel, end = (image * out_h + first) * out_w, (image * out_h + min(first + rows, out_h)) * out_w
        for at in range(pixel, end, PIXELS_AT_ONCE):
            pixels, c_at = min(PIXELS_AT_ONCE, end - at), at * outputs
            if prefetches:
                _prefetch_to_write(c, c_at + pixels * outputs, pixels * outputs)
            _products(pixels, a, at * inputs, inputs, (1, 0, 1, 0, channels), b, groups, channels, columns, init, c, c_at)
            if slope != 1:
                activate_rows(c, c_at, 1, 0, pixels * outputs, slope)


@body
def convolve_tile(x, weight, kernel, bias, pad_top, pad_left, corner, size, strip, y, slope):
    """A tile of minimal filtering, or what is inside the image. corner: image, row, column. size: rows, columns."""
    (kernel_h, kernel_w), (image, top, left), (rows, columns), c = kernel, corner, size, y.reshape(-1)
    inputs, out_h, out_w, outputs = x.shape[3], y.shape[1], y.shape[2], y.shape[3]
    channels = weight.size // (kernel_h * kernel_w * outputs)
    groups = inputs // channels
    row = (columns + kernel_w - 1) * inputs
    rows, columns = min(rows, out_h - top), min(columns, out_w - left)
    taps = _taps(kernel_h, kernel_w, 1, 1, row, inputs, groups)
    fill(x, image, top - pad_top, rows + kernel_h - 1, left - pad_left, row, strip)
    for r in range(rows):
        at = ((image * out_h + top + r) * out_w + left) * outputs
        _products(columns, strip, r * row, inputs, taps, weight, groups, channels, outputs // groups, bias, c, at)
        if slope != 1:
            activate_rows(c, at, 1, 0, columns * outputs, slope)


@inlined
def backward_weights(x, dy, kernel, groups, geometry, rows, start, stop, terms, strip, partial):
    """x's patches, transposed, times dy in the first rows of partial (D + 1, O), for strips of `rows` rows start to stop.

    terms: the pixels whose products are added up in T before their sum is added to partial, or 0 for all: see `summed_together`.
    """
    (kernel_h, kernel_w), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w) = kernel, geometry
    inputs, out_h, out_w, outputs = x.shape[3], dy.shape[1], dy.shape[2], dy.shape[3]
    _, row = strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs)
    per_image = (out_h + rows - 1) // rows
    b, total = dy.reshape(-1), partial.reshape(-1)
    channels, columns = inputs // groups, outputs // groups
    loops, step, outer, between, run = _taps(kernel_h, kernel_w, dilation_h, dilation_w, row, inputs, groups)
    size, pixels = kernel_h * kernel_w * channels * outputs, 0
    c, to = (strip, strip.size - size) if terms > 0 else (total, 0)
    block = max(1, BLOCK // (out_w * outputs))
    partial[:] = 0
    if terms > 0:
        strip[to:] = 0
    for unit in range(start, stop):
        image, first = unit // per_image, unit % per_image * rows
        count = min(rows, out_h - first)
        filled = (count - 1) * stride_h + extent(kernel_h, dilation_h)
        fill(x, image, first * stride_h - pad_top, filled, -pad_left, row, strip)
        a_outer, a_k, b_outer = stride_h * row, stride_w * inputs, out_w * outputs
        for r in range(0, count, block):
            height, b_at = min(block, count - r), (image * out_h + first + r) * out_w * outputs
            for tap in range(loops * outer):
                k, o = divmod(tap, outer)
                for group in range(groups):
                    at = r * stride_h * row + k * step + o * between + group * channels
                    here, b_here = to + tap * run * outputs + group * columns, b_at + group * columns
                    gemm(
                        run,
                        strip,
                        at,
                        a_outer,
                        1,
                        a_k,
                        b,
                        b_here,
                        b_outer,
                        outputs,
                        height,
                        out_w,
                        c,
                        here,
                        outputs,
                        c,
                        here,
                        outputs,
                        columns,
                    )
            pixels += height * out_w
            if 0 < terms <= pixels:
                take_sums(strip, to, total, 0, size)
                pixels = 0
    if terms > 0:
        take_sums(strip, to, total, 0, size)
