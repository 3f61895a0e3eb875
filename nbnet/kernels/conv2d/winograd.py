"""Convolution of 3 x 3 with stride 1 by minimal filtering, F(2 x 2, 3 x 3): 16 products where the definition has 36.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", after Winograd 1980. A tile of 2 x 2 outputs y comes
from 4 x 4 inputs d and the 3 x 3 filter g as

    y = A' [(G g G') * (B' d B)] A        where ' transposes, * multiplies number by number, and

    B' = 1  0 -1  0     G =  1    0    0     A' = 1  1  1  0
         0  1  1  0         1/2  1/2  1/2         0  1 -1 -1
         0 -1  1  0         1/2 -1/2  1/2
         0  1  0 -1          0    0    1

Over channels the product is, for each of the 16 positions, a matrix product (tiles, I) @ (I, O): the register tiles of
nbnet.kernels.simd run it. B and A hold only 0, 1 and -1, so in float32 the result is as good as the plain sum's to a small factor.
The gradient with respect to g is the same formula read backwards: dg = G' [(A dy A') * (B' d B)] G.

The transforms are compiled without fastmath, so that their sums have one order, in the serial and in the parallel kernel.
Positions are planes in scratch: plane p holds (TILES, channels) and some padding.
"""

from nbnet.kernels.compile import inlined, precise
from nbnet.kernels.conv2d import PAD, TILES
from nbnet.kernels.simd import lanes, multiply
from nbnet.kernels.vector import load, splat, store, zero


@precise
def _columns(d0, d1, d2, d3):
    """B' times a column."""
    return d0 - d2, d1 + d2, d2 - d1, d1 - d3


@precise
def _row(flat, at, channels, n0, n1, n2, n3):
    """A row of four pixels times B."""
    d0, d1 = load(flat, at, n0), load(flat, at + channels, n1)
    d2, d3 = load(flat, at + 2 * channels, n2), load(flat, at + 3 * channels, n3)
    return _columns(d0, d1, d2, d3)


@precise
def _rows_inside(flat, at, channels, width, count):
    """The four rows of a tile that lies inside the image, times B."""
    r0 = _row(flat, at, channels, count, count, count, count)
    r1 = _row(flat, at + width * channels, channels, count, count, count, count)
    r2 = _row(flat, at + 2 * width * channels, channels, count, count, count, count)
    r3 = _row(flat, at + 3 * width * channels, channels, count, count, count, count)
    return r0, r1, r2, r3


@precise
def _rows_of_border(flat, at, channels, height, width, top, left, count):
    """The same with zeros for the pixels outside: nothing is loaded there."""
    n0 = count if 0 <= left < width else 0
    n1 = count if 0 <= left + 1 < width else 0
    n2 = count if 0 <= left + 2 < width else 0
    n3 = count if 0 <= left + 3 < width else 0
    i0, i1 = 1 if 0 <= top < height else 0, 1 if 0 <= top + 1 < height else 0
    i2, i3 = 1 if 0 <= top + 2 < height else 0, 1 if 0 <= top + 3 < height else 0
    r0 = _row(flat, at, channels, n0 * i0, n1 * i0, n2 * i0, n3 * i0)
    r1 = _row(flat, at + width * channels, channels, n0 * i1, n1 * i1, n2 * i1, n3 * i1)
    r2 = _row(flat, at + 2 * width * channels, channels, n0 * i2, n1 * i2, n2 * i2, n3 * i2)
    r3 = _row(flat, at + 3 * width * channels, channels, n0 * i3, n1 * i3, n2 * i3, n3 * i3)
    return r0, r1, r2, r3


@precise
def _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, planes):
    """Planes of B' d B, of `tiles` tiles from number `first` on, counted over all images."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(-1)
    plane = TILES * channels + PAD
    for t in range(tiles):
        row, column = divmod(first + t, across)
        image, row = divmod(row, down)
        top, left = 2 * row - pad_top, 2 * column - pad_left
        pixel = (image * height + top) * width + left
        inside = top >= 0 and left >= 0 and top + 3 < height and left + 3 < width
        for c in range(0, channels, lanes(x)):
            n, at, to = channels - c, pixel * channels + c, t * channels + c
            if inside:
                r0, r1, r2, r3 = _rows_inside(flat, at, channels, width, n)
            else:
                r0, r1, r2, r3 = _rows_of_border(flat, at, channels, height, width, top, left, n)
            for j in range(4):
                v0, v1, v2, v3 = _columns(r0[j], r1[j], r2[j], r3[j])
                store(planes, to + j * plane, n, v0)
                store(planes, to + (4 + j) * plane, n, v1)
                store(planes, to + (8 + j) * plane, n, v2)
                store(planes, to + (12 + j) * plane, n, v3)


# ------------------------------------------------------------------------------------------- forward, backward_data


@precise
def _filter_column(g0, g1, g2, half):
    """G times a column."""
    outer, middle = (g0 + g2) * half, g1 * half
    return g0, outer + middle, outer - middle, g2


@precise
def _filter_row(weight, at, size, n, half):
    """A row of the filters times G'."""
    return _filter_column(load(weight, at, n), load(weight, at + size, n), load(weight, at + 2 * size, n), half)


@precise
def transform_weights(weight, packed):
    """packed[4 * j + k] = (G g G')[j, k] for each pair of channels: weight (9, I, O) flat, packed (16, I, O) flat."""
    size = weight.size // 9
    half = splat(weight.dtype.type(0.5))
    for c in range(0, size, lanes(weight)):
        n = size - c
        r0 = _filter_row(weight, c, size, n, half)
        r1 = _filter_row(weight, 3 * size + c, size, n, half)
        r2 = _filter_row(weight, 6 * size + c, size, n, half)
        for k in range(4):
            u0, u1, u2, u3 = _filter_column(r0[k], r1[k], r2[k], half)
            store(packed, k * size + c, n, u0)
            store(packed, (4 + k) * size + c, n, u1)
            store(packed, (8 + k) * size + c, n, u2)
            store(packed, (12 + k) * size + c, n, u3)


@precise
def _sums(m0, m1, m2, m3):
    """A' times a column."""
    return m0 + m1 + m2, m1 - m2 - m3


@precise
def _transform_outputs(products, first, tiles, down, across, bias, y):
    out_h, out_w, outputs = y.shape[1], y.shape[2], y.shape[3]
    flat = y.reshape(-1)
    plane = TILES * outputs + PAD
    for t in range(tiles):
        row, column = divmod(first + t, across)
        image, row = divmod(row, down)
        pixel = (image * out_h + 2 * row) * out_w + 2 * column
        below, right = 2 * row + 1 < out_h, 2 * column + 1 < out_w
        for c in range(0, outputs, lanes(y)):
            n = outputs - c
            at = t * outputs + c
            c0 = _column_sums(products, at, plane, n)
            c1 = _column_sums(products, at + plane, plane, n)
            c2 = _column_sums(products, at + 2 * plane, plane, n)
            c3 = _column_sums(products, at + 3 * plane, plane, n)
            b = load(bias, c, n)
            y0, y1 = _sums(c0[0], c1[0], c2[0], c3[0])
            y2, y3 = _sums(c0[1], c1[1], c2[1], c3[1])
            store(flat, pixel * outputs + c, n, y0 + b)
            if right:
                store(flat, (pixel + 1) * outputs + c, n, y1 + b)
            if below:
                store(flat, (pixel + out_w) * outputs + c, n, y2 + b)
            if below and right:
                store(flat, (pixel + out_w + 1) * outputs + c, n, y3 + b)


@precise
def _column_sums(products, at, plane, n):
    """A' times column j of the products, whose first number is at `at`."""
    return _sums(
        load(products, at, n), load(products, at + 4 * plane, n), load(products, at + 8 * plane, n), load(products, at + 12 * plane, n)
    )


@inlined
def convolve(x, packed, bias, pad_top, pad_left, start, stop, scratch, y):
    """Rows of tiles start to stop, counted over all images, of y = bias + x convolved with the weights that `packed` was made of."""
    inputs, outputs = x.shape[3], y.shape[3]
    down, across = (y.shape[1] + 1) // 2, (y.shape[2] + 1) // 2
    a_plane, c_plane = TILES * inputs + PAD, TILES * outputs + PAD
    planes, rest = scratch[: 16 * a_plane], scratch[16 * a_plane :]
    products, zeros = rest[: 16 * c_plane], rest[16 * c_plane :][:outputs]
    weights = packed.reshape(-1)
    zeros[:] = 0
    for first in range(start * across, stop * across, TILES):
        tiles = min(TILES, stop * across - first)
        _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, planes)
        for p in range(16):
            a, b, c = p * a_plane, p * inputs * outputs, p * c_plane
            multiply(tiles, planes, a, 0, inputs, 1, weights, b, 0, outputs, 1, inputs, zeros, 0, 0, products, c, outputs, outputs)
        _transform_outputs(products, first, tiles, down, across, bias, y)


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _spread(d0, d1):
    """A times a column of two."""
    return d0, d0 + d1, d0 - d1, zero(d1) - d1


@precise
def _transform_gradients(dy, first, tiles, down, across, planes):
    """Planes of A dy A'."""
    out_h, out_w, outputs = dy.shape[1], dy.shape[2], dy.shape[3]
    flat = dy.reshape(-1)
    plane = TILES * outputs + PAD
    for t in range(tiles):
        row, column = divmod(first + t, across)
        image, row = divmod(row, down)
        pixel = (image * out_h + 2 * row) * out_w + 2 * column
        below, right = 2 * row + 1 < out_h, 2 * column + 1 < out_w
        for c in range(0, outputs, lanes(dy)):
            n = outputs - c
            at = t * outputs + c
            d0 = load(flat, pixel * outputs + c, n)
            d1 = load(flat, (pixel + 1) * outputs + c, n if right else 0)
            d2 = load(flat, (pixel + out_w) * outputs + c, n if below else 0)
            d3 = load(flat, (pixel + out_w + 1) * outputs + c, n if below and right else 0)
            upper, lower = _spread(d0, d1), _spread(d2, d3)
            for j in range(4):
                v0, v1, v2, v3 = _spread(upper[j], lower[j])
                store(planes, at + j * plane, n, v0)
                store(planes, at + (4 + j) * plane, n, v1)
                store(planes, at + (8 + j) * plane, n, v2)
                store(planes, at + (12 + j) * plane, n, v3)


@precise
def _gather(u0, u1, u2, u3, half):
    """G' times a column."""
    outer = (u1 + u2) * half
    return u0 + outer, (u1 - u2) * half, outer + u3


@precise
def _gather_row(sums, at, size, n, half):
    """Four planes of sums, from `at` on, times G."""
    return _gather(load(sums, at, n), load(sums, at + size, n), load(sums, at + 2 * size, n), load(sums, at + 3 * size, n), half)


@precise
def _gradient(sums, size, dweight):
    """dweight (9, I, O) = G' u G, from the 16 planes u of `size` numbers."""
    half = splat(sums.dtype.type(0.5))
    for c in range(0, size, lanes(sums)):
        n = size - c
        r0, r1 = _gather_row(sums, c, size, n, half), _gather_row(sums, 4 * size + c, size, n, half)
        r2, r3 = _gather_row(sums, 8 * size + c, size, n, half), _gather_row(sums, 12 * size + c, size, n, half)
        for k in range(3):
            g0, g1, g2 = _gather(r0[k], r1[k], r2[k], r3[k], half)
            store(dweight, k * size + c, n, g0)
            store(dweight, (3 + k) * size + c, n, g1)
            store(dweight, (6 + k) * size + c, n, g2)


@inlined
def backward_weights(x, dy, pad_top, pad_left, start, stop, scratch, partial):
    """The gradient of the weights in the first rows of partial (9 * I + 1, O), from rows of tiles start to stop."""
    inputs, outputs = x.shape[3], dy.shape[3]
    down, across = (dy.shape[1] + 1) // 2, (dy.shape[2] + 1) // 2
    a_plane, b_plane = TILES * inputs + PAD, TILES * outputs + PAD
    planes, rest = scratch[: 16 * a_plane], scratch[16 * a_plane :]
    gradients, sums = rest[: 16 * b_plane], rest[16 * b_plane :]
    sums[:] = 0
    for first in range(start * across, stop * across, TILES):
        tiles = min(TILES, stop * across - first)
        _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, planes)
        _transform_gradients(dy, first, tiles, down, across, gradients)
        for p in range(16):
            a, b, c = p * a_plane, p * b_plane, p * inputs * outputs
            multiply(inputs, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, tiles, sums, c, outputs, sums, c, outputs, outputs)
    _gradient(sums, inputs * outputs, partial.reshape(-1))
