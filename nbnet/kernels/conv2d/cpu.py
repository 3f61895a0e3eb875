"""Convolution on the CPU: vector register tiles over strips of padded rows, or minimal filtering where that is faster."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.conv2d import (
    EDGE,
    GROUP,
    NESTED_PLANES,
    NESTED_TILE,
    PLANES,
    TILES_A_THREAD,
    col2im,
    col2im_chunks,
    direct,
    lines,
    nested_lines,
    plan,
    planes,
    summed_together,
    uses_col2im,
    winograd,
)
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for, parallel_for_thread
from nbnet.kernels.cpu.reductions import add_rows, merge_moments, moments_of_rows
from nbnet.kernels.cpu.transpose import transpose

MANY, PARTS = 1 << 16, 32  # weights from which several threads prepare them, in so many parts


@body
def _units(first, last, count, y, rows):
    """The half-open range of units, `rows` rows of an image or what is left of them, that belong to chunks first to last."""
    units = y.shape[0] * ((y.shape[1] + rows - 1) // rows)
    return first * units // count, last * units // count


@body
def _cut(y, rows, count, filters, threads):
    """How the work is cut: rows of a unit, chunks, and groups of chunks, which threads claim one by one. Minimal filtering of images, or
    nested, computes a group together, so that its products have enough rows. That changes no bit of the result, so groups may depend on
    the number of threads."""
    if filters != PLANES and filters != NESTED_PLANES:
        return rows, count, count
    tile_h, tile_w = (EDGE, EDGE) if filters == PLANES else (1, NESTED_TILE)
    tiles = y.shape[0] * -(-y.shape[1] // tile_h) * -(-y.shape[2] // tile_w)
    return rows, count, min(count, max(1, min(threads, tiles // TILES_A_THREAD), tiles // GROUP // threads * threads))


@body
def _parts(weight):
    """The parts in which threads transform weights, and add up their gradients."""
    return PARTS if weight.size >= MANY else 1


@body
def _pixel(unit, y, rows):
    """The output pixel, counted over all images, with which a unit starts."""
    image, part = divmod(unit, (y.shape[1] + rows - 1) // rows)
    return (image * y.shape[1] + part * rows) * y.shape[2]


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(group, thread, x, weight, bias, slope, geometry, cut, packed, strips, y, partials):
    """The chunks of a group."""
    kernel_h, kernel_w, inputs, outputs = weight.shape
    rows, count, groups = cut
    first, last = chunks.bounds(group, groups, count)
    start, stop = _units(first, last, count, y, rows)
    kernel, top, left = (kernel_h, kernel_w), geometry[2], geometry[3]
    if strips.ndim == 4:
        nested_lines.convolve(x, weight.reshape(-1), kernel, packed, bias, top, left, start, stop, strips[thread, 0, 0], y, slope)
    elif strips.ndim == 3:
        lines.convolve(x, weight.reshape(-1), kernel, packed, bias, top, left, start, stop, strips[thread, 0], y, slope)
    elif packed.size > 0:
        winograd.convolve(x, weight.reshape(-1), kernel, packed, bias, top, left, start, stop, strips[thread], y, slope)
    else:
        flat, of_channels = weight.reshape(-1, outputs), x.shape[3] // inputs
        if direct.pointwise(x, y, kernel, geometry):
            direct.convolve_pointwise(x, flat, of_channels, bias, rows, start, stop, y, slope)
        else:
            direct.convolve(x, flat, kernel, of_channels, bias, geometry, rows, start, stop, strips[thread], y, slope)
    if partials.shape[0] > 0:
        for chunk in range(first, last):
            start, stop = _units(chunk, chunk + 1, count, y, rows)
            first_pixel, last_pixel = _pixel(start, y, rows), _pixel(stop, y, rows)
            moments_of_rows(y.reshape(-1, outputs), None, first_pixel, last_pixel, np.intp(0), outputs, partials[chunk])


@body
def _transform(part, thread, parts, weights, kernel_w, outputs, groups, packed, strips):
    """A part of the transformed weights of minimal filtering, where it is used."""
    width = winograd.panel_width(weights, outputs // groups)
    if strips.ndim == 4:
        nested_lines.transform_weights(weights, kernel_w, outputs, width, strips[thread, 0, 0], packed, part, parts)
    elif strips.ndim == 3:
        if part == 0:
            lines.transform_weights(weights, kernel_w, outputs, width, packed)
    elif packed.size > 0:
        winograd.transform_weights(weights, outputs, width, strips[thread], packed, part, parts)


@body
def _cut_forward(x, weight, geometry, packed, strips, y):
    """How the work is cut."""
    kernel_h, kernel_w, inputs, outputs = weight.shape
    stride_h, stride_w, _, _, dilation_h, dilation_w = geometry
    images, out_h, out_w, channels = y.shape[0], y.shape[1], y.shape[2], x.shape[3]
    rows, count = plan(
        images,
        out_h,
        out_w,
        outputs,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        dilation_h,
        dilation_w,
        channels,
        channels // inputs,
        packed.shape[0],
    )
    return _cut(y, rows, count, packed.shape[0], strips.shape[0])


@serial
def forward_serial(
    x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, packed, ready, strips, y, partials, mean, m2
):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    cut, groups = _cut_forward(x, weight, geometry, packed, strips, y), x.shape[3] // weight.shape[2]
    parts = 0 if ready else _parts(weight)
    for k in range(parts):
        _transform(k, 0, parts, weight.reshape(-1), weight.shape[1], y.shape[3], groups, packed, strips)
    for k in range(cut[2]):
        _forward(k, 0, x, weight, bias, slope, geometry, cut, packed, strips, y, partials)
    if partials.shape[0] > 0:
        merge_moments(partials, mean, m2)


@parallel
def forward_parallel(
    x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, packed, ready, strips, y, partials, mean, m2
):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    cut, groups = _cut_forward(x, weight, geometry, packed, strips, y), x.shape[3] // weight.shape[2]
    parts = 0 if ready else _parts(weight)
    parallel_for_thread(parts, _transform, (parts, weight.reshape(-1), weight.shape[1], y.shape[3], groups, packed, strips))
    parallel_for_thread(cut[2], _forward, (x, weight, bias, slope, geometry, cut, packed, strips, y, partials))
    if partials.shape[0] > 0:
        merge_moments(partials, mean, m2)


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _rotate(part, parts, weight, groups, transposed):
    """transposed[(kh, kw, o), g*J + j] = weight[KH-1-kh, KW-1-kw, j, g*O/G + o], for o below O/G, at a part of the taps."""
    kernel_h, kernel_w, inputs, outputs = weight.shape
    source, target, columns = weight.reshape(-1), transposed.reshape(-1), outputs // groups
    first, last = chunks.bounds(part, parts, kernel_h * kernel_w)
    for tap in range(first, last):
        at = (kernel_h * kernel_w - 1 - tap) * inputs * outputs
        to = tap * columns * inputs * groups
        for group in range(groups):
            transpose(source, at + group * columns, outputs, inputs, columns, target, to + group * inputs, inputs * groups)


@body
def _cut_backward_data(dy, weight, geometry, transposed, packed, strips, dx):
    """How the work is cut. Writes zeros at the end of transposed, and with col2im all of it."""
    kernel_h, kernel_w, inputs, outputs = weight.shape
    stride_h, stride_w, _, _, dilation_h, dilation_w = geometry
    groups = dx.shape[3] // inputs
    columns = outputs // groups
    transposed[kernel_h * kernel_w * columns :] = 0
    if uses_col2im(inputs, stride_h, stride_w):
        depth = kernel_h * kernel_w * inputs
        for group in range(groups):
            transpose(weight.reshape(-1), group * columns, outputs, depth, columns, transposed.reshape(-1), group * columns * depth, depth)
        count = col2im_chunks(dx.shape[0], dy.shape[1], dy.shape[2], outputs, depth)
        return dx.shape[1], count, count
    images, height, width, channels = dx.shape
    filters = packed.shape[0]
    rows, count = plan(images, height, width, channels, kernel_h, kernel_w, 1, 1, dilation_h, dilation_w, outputs, groups, filters)
    return _cut(dx, rows, count, filters, strips.shape[0])


@body
def _backward_data(group, thread, dy, weight, geometry, cut, transposed, packed, strips, dx):
    """The chunks of a group."""
    kernel_h, kernel_w, inputs, _ = weight.shape
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    rows, count, groups = cut
    kernel = kernel_h, kernel_w
    of_channels = dx.shape[3] // inputs
    flat = transposed.reshape(-1)
    weights, zeros = flat[: weight.size], flat[weight.size :]
    top, left = (kernel_h - 1) * dilation_h - pad_top, (kernel_w - 1) * dilation_w - pad_left
    first, last = chunks.bounds(group, groups, count)
    start, stop = _units(first, last, count, dx, rows)
    if strips.ndim == 4:
        nested_lines.convolve(dy, weights, kernel, packed, zeros, top, left, start, stop, strips[thread, 0, 0], dx)
    elif strips.ndim == 3:
        lines.convolve(dy, weights, kernel, packed, zeros, top, left, start, stop, strips[thread, 0], dx)
    elif uses_col2im(inputs, stride_h, stride_w):
        start, stop = chunks.bounds(group, count, dx.shape[0])
        col2im.backward_data(dy, weights, zeros, kernel, of_channels, geometry, start, stop, strips[thread], dx)
    elif packed.size > 0:
        winograd.convolve(dy, weights, kernel, packed, zeros, top, left, start, stop, strips[thread], dx)
    else:
        matrix = weights.reshape(-1, dx.shape[3])
        turned = 1, 1, top, left, dilation_h, dilation_w
        if direct.pointwise(dy, dx, kernel, turned):
            direct.convolve_pointwise(dy, matrix, of_channels, zeros, rows, start, stop, dx)
        else:
            direct.convolve(dy, matrix, kernel, of_channels, zeros, turned, rows, start, stop, strips[thread], dx)


@serial
def backward_data_serial(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, transposed, packed, strips, dx):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    cut, groups = _cut_backward_data(dy, weight, geometry, transposed, packed, strips, dx), dx.shape[3] // weight.shape[2]
    parts = 0 if uses_col2im(weight.shape[2], stride_h, stride_w) else _parts(weight)
    for k in range(parts):
        _rotate(k, parts, weight, groups, transposed)
    turned = transposed.reshape(-1)[: weight.size]
    for k in range(parts):
        _transform(k, 0, parts, turned, weight.shape[1], dx.shape[3], groups, packed, strips)
    for k in range(cut[2]):
        _backward_data(k, 0, dy, weight, geometry, cut, transposed, packed, strips, dx)


@parallel
def backward_data_parallel(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, transposed, packed, strips, dx):
    geometry = stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w
    cut, groups = _cut_backward_data(dy, weight, geometry, transposed, packed, strips, dx), dx.shape[3] // weight.shape[2]
    parts = 0 if uses_col2im(weight.shape[2], stride_h, stride_w) else _parts(weight)
    parallel_for(parts, _rotate, (parts, weight, groups, transposed))
    turned = transposed.reshape(-1)[: weight.size]
    parallel_for_thread(parts, _transform, (parts, turned, weight.shape[1], dx.shape[3], groups, packed, strips))
    parallel_for_thread(cut[2], _backward_data, (dy, weight, geometry, cut, transposed, packed, strips, dx))


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _backward_weights(k, thread, x, dy, kernel, geometry, strips, partials, biased):
    """A chunk, with its own partial sum (D + 1, O). kernel: KH, KW, J."""
    kernel_h, kernel_w, depth = kernel
    stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    inputs, outputs = x.shape[3], dy.shape[3]
    groups = inputs // depth
    images, out_h, out_w = dy.shape[0], dy.shape[1], dy.shape[2]
    steps = stride_h, stride_w, dilation_h, dilation_w
    filters = planes(images, out_h, out_w, kernel_h, kernel_w, *steps, inputs, outputs, groups)
    rows, _ = plan(images, out_h, out_w, outputs, kernel_h, kernel_w, *steps, inputs, groups, filters)
    start, stop = _units(k, k + 1, partials.shape[0], dy, rows)
    partial = partials[k]
    terms = summed_together(dy.size // outputs, partials.shape[0])
    # Minimal filtering spreads NaN, infinity and overflow to weights that do not depend on it.
    if strips.ndim == 4:
        strip = strips[thread, 0, 0]
        finite = nested_lines.backward_weights(x, dy, kernel_w, pad_top, pad_left, start, stop, terms, strip, partial)
    elif strips.ndim == 3:
        strip = strips[thread, 0]
        finite = lines.backward_weights(x, dy, kernel_w, pad_top, pad_left, start, stop, terms, strip, partial)
    else:
        strip = strips[thread]
        finite = filters > 0 and winograd.backward_weights(x, dy, pad_top, pad_left, start, stop, terms, strip, partial)
    if not finite:
        direct.backward_weights(x, dy, (kernel_h, kernel_w), groups, geometry, rows, start, stop, terms, strip, partial)
    if biased:
        bias = partial[partial.shape[0] - 1]
        bias[:] = 0
        pixel, end = _pixel(start, dy, rows), _pixel(stop, dy, rows)
        add_rows(dy.reshape(-1), pixel * outputs, end - pixel, outputs, outputs, bias, 0)


@body
def _merge(part, parts, partials, dweight, dbias):
    """Add up a part of partials (K, D + 1, O) in order: the weights' gradient (D, O) and, from the last rows, the bias's (O,)."""
    first, last = chunks.bounds(part, parts, dweight.shape[0])
    _merge_rows(first, last, partials, dweight, dbias if part == 0 else dbias[:0])


@precise
def _merge_rows(first, last, partials, dweight, dbias):
    depth, outputs = dweight.shape
    for d in range(first, last):
        for o in range(outputs):
            dweight[d, o] = partials[0, d, o]
        for k in range(1, partials.shape[0]):
            for o in range(outputs):
                dweight[d, o] += partials[k, d, o]
    for o in range(dbias.size):
        dbias[o] = partials[0, depth, o]
        for k in range(1, partials.shape[0]):
            dbias[o] += partials[k, depth, o]


@serial
def backward_weights_serial(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, strips, partials, dweight, dbias):
    kernel_h, kernel_w, depth, outputs = dweight.shape
    kernel, geometry = (kernel_h, kernel_w, depth), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)
    n, biased, parts = partials.shape[0], dbias.size > 0, _parts(dweight)
    for k in range(n):
        _backward_weights(k, 0, x, dy, kernel, geometry, strips, partials, biased)
    for k in range(parts):
        _merge(k, parts, partials, dweight.reshape(-1, outputs), dbias)


@parallel
def backward_weights_parallel(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, strips, partials, dweight, dbias):
    kernel_h, kernel_w, depth, outputs = dweight.shape
    kernel, geometry = (kernel_h, kernel_w, depth), (stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w)
    n, biased, parts = partials.shape[0], dbias.size > 0, _parts(dweight)
    parallel_for_thread(n, _backward_weights, (x, dy, kernel, geometry, strips, partials, biased))
    parallel_for(parts, _merge, (parts, partials, dweight.reshape(-1, outputs), dbias))
