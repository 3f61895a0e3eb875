"""Convolution along lines, kernels of height 1 with 7 to 9 taps and stride 1, by nested minimal filtering: 25 products instead of 81.

With 9 taps g, the last of them zero where a kernel has fewer, output 3a + b of a line d is the sum over i and j of
g[3i + j] d[3 (a + i) + b + j]: a convolution of 3 x 3 over a and b, of rows of 5 inputs that start every 3 pixels. So a tile of 9 outputs y
comes from 17 inputs as in winograd.py, by F(3 x 3, 3 x 3):

    y = A' [(G g G') * (B' d B)] A        where ' transposes, * multiplies elementwise (lines_points.py has the matrices)

Over channels, each of the 25 positions is a matrix product (tiles, I) @ (I, O). The gradient with respect to g is the transposed formula,
dg = G' [(A dy A') * (B' d B)] G.

Positions are planes in scratch: plane 5 * i + j holds (tiles, channels) and padding. A transform runs over the rows of a tile first; the
intermediate result stays in a small buffer. Tiles are counted over all lines, so those of several short lines are filtered together.
"""

from nbnet.kernels import chunks
from nbnet.kernels.conv2d import (
    IN_CACHES,
    LANES,
    LINE_PLANES,
    LINE_TILE,
    NESTED_PLANES,
    NESTED_TILE,
    PAD,
    SPAN,
    direct,
    lines_points,
    tiles_together,
)
from nbnet.kernels.conv2d.lines import load5
from nbnet.kernels.conv2d.winograd import first_lanes, is_finite, panel_width, place_in_panels, store_vectors
from nbnet.kernels.conv2d.winograd_tiles import prefetch_run, rows_inside
from nbnet.kernels.cpu.compile import inlined, precise
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_whole, store, store_whole, zero


@precise
def _load3(array, at, step):
    return load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)


@precise
def _prefetch_share(images, first, tiles, across, plane, to_write):
    """Prefetch about a plane's share of the numbers of tiles from number `first`: they arrive while the products of the plane run."""
    line, tile = divmod(first, across)
    share = NESTED_TILE * tiles * images.shape[3] // NESTED_PLANES
    start = (line * images.shape[2] + NESTED_TILE * tile) * images.shape[3] + plane * share
    prefetch_run(images.reshape(-1), start, share, to_write)


@precise
def transform_weights(weight, taps, outputs, width, buffer, packed, part, parts):
    """packed[5 * i + j] = (G g G')[i, j] for a part of the pairs of channels: weight (K, I, O) flat, packed (25, I * O in panels and
    padding)."""
    size, vector, plane, flat = weight.size // taps, lanes(weight), packed.shape[1], packed.reshape(-1)
    first, last = chunks.bounds(part, parts, -(-size // vector))
    for c in range(first * vector, last * vector, vector):
        to = place_in_panels(c, size, outputs, width)
        for i in range(3):
            tap = LINE_TILE * i
            n0, n1, n2, _, _, _ = rows_inside(tap, taps, size - c)
            at = tap * size + c
            g0, g1, g2 = load(weight, at, n0), load(weight, at + size, n1), load(weight, at + 2 * size, n2)
            store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.filters(g0, g1, g2))
        for j in range(LINE_PLANES):
            g0, g1, g2 = _load3(buffer, j * vector, LINE_PLANES * vector)
            store_vectors(flat, to + j * plane, LINE_PLANES * plane, lines_points.filters(g0, g1, g2))


@precise
def _transform_inputs(x, out_h, pad_top, pad_left, first, tiles, across, buffer, strip, plane, planes):
    """Planes of B' d B, of so many tiles from number `first`. A tile with padding is copied to strip first. Stores of whole vectors write
    beyond a tile's channels; the next tile overwrites that."""
    height, width, channels, flat, vector = x.shape[1], x.shape[2], x.shape[3], x.reshape(-1), lanes(x)
    for slot in range(tiles):
        line, tile = divmod(first + slot, across)
        image, row = divmod(line, out_h)
        row, left = row - pad_top, NESTED_TILE * tile - pad_left
        source, start = flat, ((image * height + row) * width + left) * channels
        if not (0 <= row < height and 0 <= left <= width - SPAN):
            direct.fill(x, image, row, 1, left, SPAN * channels, strip)
            source, start = strip, 0
        for c in range(0, channels, vector):
            n = channels - c
            for i in range(LINE_PLANES):
                at = start + LINE_TILE * i * channels + c
                d0, d1, d2 = load(source, at, n), load(source, at + channels, n), load(source, at + 2 * channels, n)
                d3, d4 = load(source, at + 3 * channels, n), load(source, at + 4 * channels, n)
                store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.inputs(d0, d1, d2, d3, d4))
            for j in range(LINE_PLANES):
                d0, d1, d2, d3, d4 = load5(buffer, j * vector, LINE_PLANES * vector)
                to = slot * channels + c + j * plane
                store_vectors(planes, to, LINE_PLANES * plane, lines_points.inputs(d0, d1, d2, d3, d4))


@precise
def _transform_outputs(products, plane, first, tiles, across, bias, slope, buffer, y):
    """Tiles of y, from number `first`, from the planes of products. Return whether all sums are finite: the first vector of products for
    each tile becomes the sum of the tile before the bias, which is NaN or infinite if one number is."""
    width, channels, flat, vector = y.shape[2], y.shape[3], y.reshape(-1), lanes(y)
    wrong = zero(load_whole(products, 0))  # 0 times the sums: 0 or NaN
    for slot in range(tiles):
        line, tile = divmod(first + slot, across)
        seen = zero(wrong)
        for c in range(0, channels, vector):
            n, total, b = channels - c, zero(wrong), load(bias, c, channels - c)
            for j in range(LINE_PLANES):
                m0, m1, m2, m3, m4 = load5(products, slot * channels + c + j * plane, LINE_PLANES * plane)
                store_vectors(buffer, j * vector, LINE_PLANES * vector, lines_points.outputs(m0, m1, m2, m3, m4))
            for a in range(3):
                m0, m1, m2, m3, m4 = load5(buffer, LINE_PLANES * a * vector, vector)
                v0, v1, v2 = lines_points.outputs(m0, m1, m2, m3, m4)
                total = total + (v0 + v1 + v2)
                v0, v1, v2 = v0 + b, v1 + b, v2 + b
                if slope != 1:
                    v0, v1, v2 = activated(v0, slope), activated(v1, slope), activated(v2, slope)
                column = NESTED_TILE * tile + LINE_TILE * a
                at = (line * width + column) * channels + c
                store(flat, at, n if column < width else 0, v0)
                store(flat, at + channels, n if column + 1 < width else 0, v1)
                store(flat, at + 2 * channels, n if column + 2 < width else 0, v2)
            seen = seen + first_lanes(total, n, buffer)
        store_whole(products, slot * channels, seen)
        wrong = wrong + zero(seen) * seen
    return is_finite(wrong)


@precise
def _pieces(scratch, inputs, outputs, together):
    """The buffer of a tile, the strip of a tile, the planes of inputs and of outputs, zeros (O,), and the rest of scratch."""
    buffer, rest = scratch[: NESTED_PLANES * lanes(scratch)], scratch[NESTED_PLANES * lanes(scratch) :]
    strip, rest = rest[: SPAN * inputs + LANES], rest[SPAN * inputs + LANES :]
    planes, rest = rest[: NESTED_PLANES * (together * inputs + PAD)], rest[NESTED_PLANES * (together * inputs + PAD) :]
    products, rest = rest[: NESTED_PLANES * (together * outputs + PAD)], rest[NESTED_PLANES * (together * outputs + PAD) :]
    zeros = rest[:outputs]
    zeros[:] = 0
    return buffer, strip, planes, products, zeros, rest[outputs:]


@inlined
def convolve(x, weight, kernel, packed, bias, pad_top, pad_left, start, stop, scratch, y, slope=1.0):
    """Rows start to stop, counted over all images, of y = act(bias + x convolved with weight (K * I * O,)), which `packed` holds
    transformed. kernel: 1, K. Tiles with sums that are not finite are computed directly."""
    inputs, out_h, outputs = x.shape[3], y.shape[1], y.shape[3]
    across, width, together = -(-y.shape[2] // NESTED_TILE), panel_width(x, outputs), tiles_together(inputs, outputs)
    buffer, strip, planes, products, zeros, _ = _pieces(scratch, inputs, outputs, together)
    a_plane, c_plane = together * inputs + PAD, together * outputs + PAD
    weights = packed.reshape(-1)
    prefetches = x.nbytes + y.nbytes > IN_CACHES
    for first in range(start * across, stop * across, together):
        tiles = min(together, stop * across - first)
        _transform_inputs(x, out_h, pad_top, pad_left, first, tiles, across, buffer, strip, a_plane, planes)
        for p in range(NESTED_PLANES):
            if prefetches:
                _prefetch_share(x, first + together, together, across, p, False)
                _prefetch_share(y, first, together, across, p, True)
            a, b, c = p * a_plane, p * packed.shape[1], p * c_plane
            for left in range(0, outputs, width):
                to, there = c + left, b + left * inputs
                gemm(tiles, planes, a, 0, inputs, 1, weights, there, 0, width, 1, inputs, zeros, 0, 0, products, to, outputs, width)
        if not _transform_outputs(products, c_plane, first, tiles, across, bias, slope, buffer, y):
            for slot in range(tiles):
                if not is_finite(load_whole(products, slot * outputs)):
                    line, tile = divmod(first + slot, across)
                    image, row = divmod(line, out_h)
                    corner, size = (image, row, NESTED_TILE * tile), (1, NESTED_TILE)
                    direct.convolve_tile(x, weight, kernel, bias, pad_top, pad_left, corner, size, planes, y, slope)


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _transform_gradients(dy, first, tiles, across, buffer, plane, planes):
    """Planes of A dy A'."""
    width, channels, flat, vector = dy.shape[2], dy.shape[3], dy.reshape(-1), lanes(dy)
    for slot in range(tiles):
        line, tile = divmod(first + slot, across)
        for c in range(0, channels, vector):
            for i in range(3):
                column = NESTED_TILE * tile + LINE_TILE * i
                n0, n1, n2, _, _, _ = rows_inside(column, width, channels - c)
                at = (line * width + column) * channels + c
                d0, d1, d2 = load(flat, at, n0), load(flat, at + channels, n1), load(flat, at + 2 * channels, n2)
                store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.gradients(d0, d1, d2))
            for j in range(LINE_PLANES):
                d0, d1, d2 = _load3(buffer, j * vector, LINE_PLANES * vector)
                to = slot * channels + c + j * plane
                store_vectors(planes, to, LINE_PLANES * plane, lines_points.gradients(d0, d1, d2))


@precise
def _gradient(sums, size, taps, buffer, dweight):
    """dweight (K, I, O) += G' u G, from the 25 planes u of `size` numbers. Return whether all numbers are finite."""
    vector, seen = lanes(sums), zero(load_whole(sums, 0))
    for c in range(0, size, vector):
        total = zero(seen)
        for j in range(LINE_PLANES):
            u0, u1, u2, u3, u4 = load5(sums, c + j * size, LINE_PLANES * size)
            store_vectors(buffer, j * vector, LINE_PLANES * vector, lines_points.gather(u0, u1, u2, u3, u4))
        for i in range(3):
            u0, u1, u2, u3, u4 = load5(buffer, LINE_PLANES * i * vector, vector)
            v0, v1, v2 = lines_points.gather(u0, u1, u2, u3, u4)
            at = LINE_TILE * i * size + c
            n0, n1, n2, _, _, _ = rows_inside(LINE_TILE * i, taps, size - c)
            v0, v1 = v0 + load(dweight, at, n0), v1 + load(dweight, at + size, n1)
            v2 = v2 + load(dweight, at + 2 * size, n2)
            total = total + (v0 + v1 + v2)
            store(dweight, at, n0, v0)
            store(dweight, at + size, n1, v1)
            store(dweight, at + 2 * size, n2, v2)
        seen = seen + first_lanes(total, size - c, buffer)
    return is_finite(seen)


@inlined
def backward_weights(x, dy, taps, pad_top, pad_left, start, stop, terms, scratch, partial):
    """The gradient of the weights in the first rows of partial (K * I + 1, O), from rows start to stop. Return whether it is finite.
    terms: as in direct.backward_weights, of tiles."""
    inputs, out_h, outputs = x.shape[3], dy.shape[1], dy.shape[3]
    across, together, size = -(-dy.shape[2] // NESTED_TILE), tiles_together(inputs, outputs), inputs * outputs
    buffer, strip, planes, gradients, zeros, sums = _pieces(scratch, inputs, outputs, together)
    a_plane, b_plane = together * inputs + PAD, together * outputs + PAD
    partial[:] = 0
    finite, waiting = True, 0
    prefetches = x.nbytes + dy.nbytes > IN_CACHES
    for first in range(start * across, stop * across, together):
        tiles = min(together, stop * across - first)
        _transform_inputs(x, out_h, pad_top, pad_left, first, tiles, across, buffer, strip, a_plane, planes)
        _transform_gradients(dy, first, tiles, across, buffer, b_plane, gradients)
        init, step = (zeros, 0) if waiting == 0 else (sums, outputs)
        for p in range(NESTED_PLANES):
            if prefetches:
                _prefetch_share(x, first + together, together, across, p, False)
                _prefetch_share(dy, first + together, together, across, p, False)
            a, b, c, i = p * a_plane, p * b_plane, p * size, p * size if waiting > 0 else 0
            gemm(inputs, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, tiles, init, i, step, sums, c, outputs, outputs)
        waiting += tiles
        if 0 < terms <= waiting or first + together >= stop * across:
            finite = _gradient(sums, size, taps, buffer, partial.reshape(-1)) and finite
            waiting = 0
    return finite
