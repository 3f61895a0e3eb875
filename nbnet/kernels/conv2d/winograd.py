"""Convolution of 3 x 3 with stride 1 by minimal filtering, F(4 x 4, 3 x 3): 36 products instead of 144.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", after Winograd 1980. A tile of 4 x 4 outputs y comes
from 6 x 6 inputs d and the 3 x 3 filter g as

    y = A' [(G g G') * (B' d B)] A        where ' transposes, * multiplies elementwise (winograd_points.py has the matrices)

Over channels, each of the 36 positions is a matrix product (tiles, J) @ (J, O / G) for each group, computed by nbnet.kernels.cpu.gemm. The
gradient with respect to g is the transposed formula, dg = G' [(A dy A') * (B' d B)] G.

If one or two rows or columns are left at the edge of an image, a tile is low or narrow: 2 outputs in that direction, from 4 of the 6
positions, 0, 1, 2 and 5. An image of 14 x 14 then takes 484 products instead of 576.

Positions are planes in scratch: plane 6 * i + j holds (tiles, channels) and padding. A transform runs over the columns of a tile first,
then over its rows; the intermediate result stays in a small buffer.
"""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.conv2d import EDGE, IN_CACHES, PAD, PLANES, direct, tiles_together, winograd_points
from nbnet.kernels.conv2d.winograd_tiles import outer, place, position, prefetch_share, rows_inside, slots_of
from nbnet.kernels.cpu.compile import inlined, precise
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.register_tiles import MAX_VECTORS, lanes
from nbnet.kernels.cpu.vector import load, load_whole, store, store_whole, sum_of_lanes, widen, zero

# ------------------------------------------------------------------------------------- a column or a row of vectors


@precise
def _load6(array, at, step):
    a0, a1, a2 = load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)
    return a0, a1, a2, load_whole(array, at + 3 * step), load_whole(array, at + 4 * step), load_whole(array, at + 5 * step)


@precise
def _load4(array, at, step):
    return load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step), load_whole(array, at + 3 * step)


@precise
def _load_outer(array, at, step):
    return load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step), load_whole(array, at + 5 * step)


@precise
def store_vectors(array, at, step, vectors):
    """Store whole vectors, `step` numbers apart."""
    for k, value in enumerate(vectors):
        store_whole(array, at + k * step, value)


@precise
def _store_outer(array, at, step, vectors):
    v0, v1, v2, v5 = vectors
    store_vectors(array, at, step, (v0, v1, v2))
    store_whole(array, at + 5 * step, v5)


# ------------------------------------------------------------------------------------------- forward, backward_data


@precise
def _transform_inputs(x, order, tiles, down, across, out_h, out_w, pad_top, pad_left, buffer, plane, planes):
    """Planes of B' d B, `plane` numbers apart. Stores of whole vectors write beyond a tile's channels; the next tile overwrites that."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(-1)
    vector, row = lanes(x), width * channels
    for slot in range(tiles):
        image, top, left = position(order[slot], down, across)
        tall, wide = out_h - top > 2, out_w - left > 2
        top, left = top - pad_top, left - pad_left
        pixel = (image * height + top) * width + left
        for c in range(0, channels, vector):
            n0, n1, n2, n3, n4, n5 = rows_inside(top, height, channels - c)
            for j in range(6 if wide else 4):
                at = (pixel + j) * channels + c
                if not 0 <= left + j < width:
                    nothing = zero(load(flat, at, 0))
                    store_vectors(buffer, j * vector, 6 * vector, (nothing, nothing, nothing, nothing, nothing, nothing))
                    continue
                d0, d1, d2, d3 = load(flat, at, n0), load(flat, at + row, n1), load(flat, at + 2 * row, n2), load(flat, at + 3 * row, n3)
                if tall:
                    d4, d5 = load(flat, at + 4 * row, n4), load(flat, at + 5 * row, n5)
                    store_vectors(buffer, j * vector, 6 * vector, winograd_points.inputs(d0, d1, d2, d3, d4, d5))
                else:
                    _store_outer(buffer, j * vector, 6 * vector, winograd_points.inputs_of_2(d0, d1, d2, d3))
            for i in range(6):
                at, to = 6 * i * vector, 6 * i * plane + slot * channels + c
                if not tall and not outer(i):
                    continue
                if wide:
                    d0, d1, d2, d3, d4, d5 = _load6(buffer, at, vector)
                    store_vectors(planes, to, plane, winograd_points.inputs(d0, d1, d2, d3, d4, d5))
                else:
                    d0, d1, d2, d3 = _load4(buffer, at, vector)
                    _store_outer(planes, to, plane, winograd_points.inputs_of_2(d0, d1, d2, d3))


@precise
def panel_width(array, columns):
    """The columns of transformed weights that are stored together, row after row: those of one register tile, if they divide the columns of
    a group. Longer rows would map to few sets of the level-1 cache."""
    width = MAX_VECTORS * lanes(array)
    return width if columns % width == 0 else columns


@precise
def place_in_panels(at, size, outputs, width):
    """Where number `at` of a matrix (size / O, O) is among its panels of `width` columns."""
    row, column = divmod(at, outputs)
    panel, column = divmod(column, width)
    return (panel * (size // outputs) + row) * width + column


@precise
def transform_weights(weight, outputs, width, buffer, packed, part, parts):
    """packed[6 * i + j] = (G g G')[i, j] for each pair of channels of a part of them: weight (9, J, O) flat, packed (36, J * O in panels of
    `width` columns, and padding)."""
    size, vector, plane = weight.size // 9, lanes(weight), packed.shape[1]
    flat = packed.reshape(-1)
    first, last = chunks.bounds(part, parts, -(-size // vector))
    for c in range(first * vector, last * vector, vector):
        n = size - c
        for k in range(3):
            at = k * size + c
            column = load(weight, at, n), load(weight, at + 3 * size, n), load(weight, at + 6 * size, n)
            store_vectors(buffer, k * vector, 3 * vector, winograd_points.filters(*column))
        for i in range(6):
            at = 3 * i * vector
            row = load_whole(buffer, at), load_whole(buffer, at + vector), load_whole(buffer, at + 2 * vector)
            to = 6 * i * plane + place_in_panels(c, size, outputs, width)
            store_vectors(flat, to, plane, winograd_points.filters(*row))


@precise
def first_lanes(vector, count, buffer):
    """The vector with 0 in the lanes from `count` on. The start of the buffer is overwritten."""
    if count < lanes(buffer):
        store_whole(buffer, 0, zero(vector))
        store(buffer, 0, count, vector)
        vector = load_whole(buffer, 0)
    return vector


@precise
def is_finite(vector):
    """Whether all lanes are finite."""
    total = sum_of_lanes(widen(vector * zero(vector)))
    return total == total  # 0 times infinity is NaN


@precise
def _transform_outputs(products, plane, order, tiles, down, across, bias, slope, buffer, y):
    """y from the planes of products. Return how many tiles have sums that are not finite; they are moved to the start of `order`."""
    again = 0
    out_h, out_w, channels = y.shape[1], y.shape[2], y.shape[3]
    flat, vector = y.reshape(-1), lanes(y)
    for slot in range(tiles):
        image, top, left = position(order[slot], down, across)
        tall, wide = out_h - top > 2, out_w - left > 2
        seen = zero(load_whole(products, 0))  # the sum of the tile before the bias: NaN or infinite if one number is
        for c in range(0, channels, vector):
            n = channels - c
            for j in range(6):
                at = j * plane + slot * channels + c
                if not wide and not outer(j):
                    continue
                if tall:
                    m0, m1, m2, m3, m4, m5 = _load6(products, at, 6 * plane)
                    store_vectors(buffer, j * vector, 6 * vector, winograd_points.outputs(m0, m1, m2, m3, m4, m5))
                else:
                    m0, m1, m2, m5 = _load_outer(products, at, 6 * plane)
                    store_vectors(buffer, j * vector, 6 * vector, winograd_points.outputs_of_2(m0, m1, m2, m5))
            b = load(bias, c, n)
            total = zero(b)
            for i in range(min(EDGE, out_h - top)):
                at = ((image * out_h + top + i) * out_w + left) * channels + c
                m0, m1, m2, m3, m4, m5 = _load6(buffer, 6 * i * vector, vector)
                if wide:
                    v0, v1, v2, v3 = winograd_points.outputs(m0, m1, m2, m3, m4, m5)
                else:
                    v0, v1 = winograd_points.outputs_of_2(m0, m1, m2, m5)
                    v2, v3 = v0, v1  # beyond the image
                total = total + ((v0 + v1) + (v2 + v3))
                v0, v1, v2, v3 = v0 + b, v1 + b, v2 + b, v3 + b
                if slope != 1:
                    v0, v1, v2, v3 = activated(v0, slope), activated(v1, slope), activated(v2, slope), activated(v3, slope)
                if n >= vector and left + EDGE <= out_w:
                    store_vectors(flat, at, channels, (v0, v1, v2, v3))
                else:
                    for j, value in enumerate((v0, v1, v2, v3)):
                        store(flat, at + j * channels, n if left + j < out_w else 0, value)
            seen = seen + first_lanes(total, n, buffer)
        if not is_finite(seen):
            order[again] = order[slot]
            again += 1
    return again


@inlined
def convolve(x, weight, kernel, packed, bias, pad_top, pad_left, start, stop, scratch, y, slope=1.0):
    """Rows of tiles start to stop, counted over all images, of y = act(bias + x convolved with weight (9 * J * O,)), which `packed` holds
    transformed. kernel: KH, KW. Tiles with sums that are not finite are computed directly."""
    inputs, outputs = x.shape[3], y.shape[3]
    depth = weight.size // (9 * outputs)
    columns = outputs * depth // inputs  # of a group
    width = panel_width(x, columns)
    out_h, out_w = y.shape[1], y.shape[2]
    down, across = (out_h + EDGE - 1) // EDGE, (out_w + EDGE - 1) // EDGE
    together = tiles_together(inputs, outputs)
    a_plane, c_plane = together * inputs + PAD, together * outputs + PAD
    buffer, rest = scratch[: PLANES * lanes(x)], scratch[PLANES * lanes(x) :]
    planes, rest = rest[: PLANES * a_plane], rest[PLANES * a_plane :]
    products, zeros = rest[: PLANES * c_plane], rest[PLANES * c_plane :][:outputs]
    weights, order = packed.reshape(-1), np.empty(together, np.intp)
    zeros[:] = 0
    prefetches = x.nbytes + y.nbytes > IN_CACHES
    for first in range(start * across, stop * across, together):
        tiles = min(together, stop * across - first)
        whole, narrow, both = place(first, tiles, down, across, out_h, out_w, order)
        _transform_inputs(x, order, tiles, down, across, out_h, out_w, pad_top, pad_left, buffer, a_plane, planes)
        for p in range(PLANES):
            if prefetches:
                prefetch_share(x, first + together, together, down, across, p, False)
                prefetch_share(y, first, together, down, across, p, True)
            slot, count = slots_of(p, tiles, whole, narrow, both)
            a, b, c = p * a_plane + slot * inputs, p * packed.shape[1], p * c_plane + slot * outputs
            for left in range(0, outputs, width):
                here, there = a + left // columns * depth, b + left * depth
                gemm(count, planes, here, 0, inputs, 1, weights, there, 0, width, 1, depth, zeros, 0, 0, products, c + left, outputs, width)
        for slot in range(_transform_outputs(products, c_plane, order, tiles, down, across, bias, slope, buffer, y)):
            corner, size = position(order[slot], down, across), (EDGE, EDGE)
            direct.convolve_tile(x, weight, kernel, bias, pad_top, pad_left, corner, size, planes, y, slope)


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _transform_gradients(dy, order, tiles, down, across, buffer, plane, planes):
    """Planes of A dy A'."""
    out_h, out_w, channels = dy.shape[1], dy.shape[2], dy.shape[3]
    flat = dy.reshape(-1)
    vector, row = lanes(dy), out_w * channels
    for slot in range(tiles):
        image, top, left = position(order[slot], down, across)
        tall, wide = out_h - top > 2, out_w - left > 2
        for c in range(0, channels, vector):
            n0, n1, n2, n3, _, _ = rows_inside(top, out_h, channels - c)
            for j in range(EDGE if wide else 2):
                at = ((image * out_h + top) * out_w + left + j) * channels + c
                i = 1 if left + j < out_w else 0
                d0, d1 = load(flat, at, n0 * i), load(flat, at + row, n1 * i)
                if tall:
                    d2, d3 = load(flat, at + 2 * row, n2 * i), load(flat, at + 3 * row, n3 * i)
                    store_vectors(buffer, j * vector, EDGE * vector, winograd_points.gradients(d0, d1, d2, d3))
                else:
                    _store_outer(buffer, j * vector, EDGE * vector, winograd_points.gradients_of_2(d0, d1))
            for i in range(6):
                at, to = EDGE * i * vector, 6 * i * plane + slot * channels + c
                if not tall and not outer(i):
                    continue
                d0, d1, d2, d3 = _load4(buffer, at, vector)
                if wide:
                    store_vectors(planes, to, plane, winograd_points.gradients(d0, d1, d2, d3))
                else:
                    _store_outer(planes, to, plane, winograd_points.gradients_of_2(d0, d1))


@precise
def _gradient(sums, size, buffer, dweight):
    """dweight (9, J, O) += G' u G, from the 36 planes u of `size` numbers. Return whether all numbers are finite."""
    vector = lanes(sums)
    seen = zero(load_whole(sums, 0))
    for c in range(0, size, vector):
        for j in range(6):
            u0, u1, u2, u3, u4, u5 = _load6(sums, j * size + c, 6 * size)
            store_vectors(buffer, j * vector, 6 * vector, winograd_points.gather(u0, u1, u2, u3, u4, u5))
        total = zero(seen)
        for i in range(3):
            u0, u1, u2, u3, u4, u5 = _load6(buffer, 6 * i * vector, vector)
            v0, v1, v2 = winograd_points.gather(u0, u1, u2, u3, u4, u5)
            at, n = 3 * i * size + c, size - c
            v0, v1 = v0 + load(dweight, at, n), v1 + load(dweight, at + size, n)
            v2 = v2 + load(dweight, at + 2 * size, n)
            total = total + (v0 + v1 + v2)
            store(dweight, at, n, v0)
            store(dweight, at + size, n, v1)
            store(dweight, at + 2 * size, n, v2)
        seen = seen + first_lanes(total, size - c, buffer)
    return is_finite(seen)


@inlined
def backward_weights(x, dy, pad_top, pad_left, start, stop, terms, scratch, partial):
    """The gradient of the weights in the first rows of partial (9 * J + 1, O), from rows of tiles start to stop. Return whether it is
    finite. terms: as in direct.backward_weights, of tiles."""
    inputs, outputs = x.shape[3], dy.shape[3]
    depth = partial.shape[0] // 9
    columns = outputs * depth // inputs  # of a group
    out_h, out_w = dy.shape[1], dy.shape[2]
    down, across = (out_h + EDGE - 1) // EDGE, (out_w + EDGE - 1) // EDGE
    together = tiles_together(inputs, outputs)
    a_plane, b_plane = together * inputs + PAD, together * outputs + PAD
    buffer, rest = scratch[: PLANES * lanes(x)], scratch[PLANES * lanes(x) :]
    planes, rest = rest[: PLANES * a_plane], rest[PLANES * a_plane :]
    gradients, sums = rest[: PLANES * b_plane], rest[PLANES * b_plane :]
    order = np.empty(together, np.intp)
    sums[:] = 0
    partial[:] = 0
    finite, waiting = True, 0
    prefetches = x.nbytes + dy.nbytes > IN_CACHES
    for first in range(start * across, stop * across, together):
        tiles = min(together, stop * across - first)
        whole, narrow, both = place(first, tiles, down, across, out_h, out_w, order)
        _transform_inputs(x, order, tiles, down, across, out_h, out_w, pad_top, pad_left, buffer, a_plane, planes)
        _transform_gradients(dy, order, tiles, down, across, buffer, b_plane, gradients)
        for p in range(PLANES):
            if prefetches:
                prefetch_share(x, first + together, together, down, across, p, False)
                prefetch_share(dy, first + together, together, down, across, p, False)
            slot, count = slots_of(p, tiles, whole, narrow, both)
            if count > 0:
                for left in range(0, outputs, columns):
                    a, b = p * a_plane + slot * inputs + left // columns * depth, p * b_plane + slot * outputs + left
                    c = p * depth * outputs + left
                    gemm(depth, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, count, sums, c, outputs, sums, c, outputs, columns)
        waiting += tiles
        if 0 < terms <= waiting or first + together >= stop * across:
            finite = _gradient(sums, depth * outputs, buffer, partial.reshape(-1)) and finite
            if first + together < stop * across:
                sums[:] = 0
                waiting = 0
    return finite
