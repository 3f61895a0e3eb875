"""Convolution along lines, kernels of height 1 with stride 1, by minimal filtering, F(3, 3): 5 products instead of 9.

The K taps are cut into B blocks of 3, with zeros after the last. A tile of 3 outputs y comes, for each block, from 5 inputs d and the
block's 3 taps g as

    y = A' [(G g) * (B' d)]        where ' transposes, * multiplies elementwise (lines_points.py has the matrices)

A tile of outputs starts every 3 pixels, so what block b of tile t reads is what block 0 of tile t + b reads: it is transformed once. And
for each of the 5 positions, the sum over channels and blocks is one matrix product (tiles, B * I) @ (B * I, O): row t of the first matrix
are the transformed inputs of tiles t to t + B - 1, so its rows overlap in memory. The gradient with respect to g is the transposed
formula, dg = G' [(A dy) * (B' d)], again with one product for each position.

Positions are planes in scratch, as in winograd.py. Each line is filtered by itself.
"""

from nbnet.kernels.conv2d import LINE_PLANES, LINE_TILE, LINE_TILES, PAD, direct, line_blocks, lines_points
from nbnet.kernels.conv2d.winograd import first_lanes, is_finite, panel_width, place_in_panels, store_vectors
from nbnet.kernels.conv2d.winograd_tiles import rows_inside
from nbnet.kernels.cpu.compile import inlined, precise
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_whole, store, store_whole, zero


@precise
def load5(array, at, step):
    a0, a1, a2 = load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)
    return a0, a1, a2, load_whole(array, at + 3 * step), load_whole(array, at + 4 * step)


@precise
def transform_weights(weight, taps, outputs, width, packed):
    """packed[p] = (G g)[p] for each block and pair of channels: weight (K, I, O) flat, packed (5, B * I * O in panels and padding)."""
    size, vector, plane, flat = weight.size // taps, lanes(weight), packed.shape[1], packed.reshape(-1)
    for block in range(line_blocks(taps)):
        tap = LINE_TILE * block
        for c in range(0, size, vector):
            at, n = tap * size + c, size - c
            g1 = load(weight, at + size, n if tap + 1 < taps else 0)
            g2 = load(weight, at + 2 * size, n if tap + 2 < taps else 0)
            to = place_in_panels(block * size + c, line_blocks(taps) * size, outputs, width)
            store_vectors(flat, to, plane, lines_points.filters(load(weight, at, n), g1, g2))


@precise
def _transform_inputs(x, image, row, left, tiles, plane, planes):
    """Planes of B' d, of so many tiles of a row of x from column `left`. Stores of whole vectors write beyond a tile's channels; the next
    tile overwrites that."""
    width, channels, flat = x.shape[2], x.shape[3], x.reshape(-1)
    inside = width if 0 <= row < x.shape[1] else 0
    line = (image * x.shape[1] + row) * width
    for tile in range(tiles):
        column = left + LINE_TILE * tile
        for c in range(0, channels, lanes(x)):
            n0, n1, n2, n3, n4, _ = rows_inside(column, inside, channels - c)
            at = (line + column) * channels + c
            d0, d1, d2 = load(flat, at, n0), load(flat, at + channels, n1), load(flat, at + 2 * channels, n2)
            d3, d4 = load(flat, at + 3 * channels, n3), load(flat, at + 4 * channels, n4)
            store_vectors(planes, tile * channels + c, plane, lines_points.inputs(d0, d1, d2, d3, d4))


@precise
def _transform_outputs(products, plane, tiles, line, first, bias, slope, buffer, y):
    """Tiles of y, from number `first` of a line, from the planes of products. Return whether all sums are finite: the first vector of
    products for each tile becomes the sum of the tile before the bias, which is NaN or infinite if one number is."""
    width, channels, flat = y.shape[2], y.shape[3], y.reshape(-1)
    wrong = zero(load_whole(products, 0))  # 0 times the sums: 0 or NaN
    for tile in range(tiles):
        column, seen = LINE_TILE * (first + tile), zero(wrong)
        for c in range(0, channels, lanes(y)):
            n, at = channels - c, (line * width + column) * channels + c
            m0, m1, m2, m3, m4 = load5(products, tile * channels + c, plane)
            v0, v1, v2 = lines_points.outputs(m0, m1, m2, m3, m4)
            seen = seen + first_lanes(v0 + v1 + v2, n, buffer)
            b = load(bias, c, n)
            v0, v1, v2 = v0 + b, v1 + b, v2 + b
            if slope != 1:
                v0, v1, v2 = activated(v0, slope), activated(v1, slope), activated(v2, slope)
            store(flat, at, n, v0)
            store(flat, at + channels, n if column + 1 < width else 0, v1)
            store(flat, at + 2 * channels, n if column + 2 < width else 0, v2)
        store_whole(products, tile * channels, seen)
        wrong = wrong + zero(seen) * seen
    return is_finite(wrong)


@inlined
def convolve(x, weight, kernel, packed, bias, pad_top, pad_left, start, stop, scratch, y, slope=1.0):
    """Rows start to stop, counted over all images, of y = act(bias + x convolved with weight (K * I * O,)), which `packed` holds
    transformed. kernel: 1, K. Tiles with sums that are not finite are computed directly."""
    inputs, out_h, out_w, outputs = x.shape[3], y.shape[1], y.shape[2], y.shape[3]
    blocks, total = line_blocks(kernel[1]), (out_w + LINE_TILE - 1) // LINE_TILE
    depth, width = blocks * inputs, panel_width(x, outputs)
    a_plane, c_plane = (LINE_TILES + blocks - 1) * inputs + PAD, LINE_TILES * outputs + PAD
    buffer, rest = scratch[: lanes(x)], scratch[lanes(x) :]
    planes, rest = rest[: LINE_PLANES * a_plane], rest[LINE_PLANES * a_plane :]
    products, zeros = rest[: LINE_PLANES * c_plane], rest[LINE_PLANES * c_plane :][:outputs]
    weights = packed.reshape(-1)
    zeros[:] = 0
    for line in range(start, stop):
        image, row = divmod(line, out_h)
        for first in range(0, total, LINE_TILES):
            tiles = min(LINE_TILES, total - first)
            _transform_inputs(x, image, row - pad_top, LINE_TILE * first - pad_left, tiles + blocks - 1, a_plane, planes)
            for p in range(LINE_PLANES):
                a, b, c = p * a_plane, p * packed.shape[1], p * c_plane
                for left in range(0, outputs, width):
                    to, there = c + left, b + left * depth
                    gemm(tiles, planes, a, 0, inputs, 1, weights, there, 0, width, 1, depth, zeros, 0, 0, products, to, outputs, width)
            if not _transform_outputs(products, c_plane, tiles, line, first, bias, slope, buffer, y):
                for tile in range(tiles):
                    if not is_finite(load_whole(products, tile * outputs)):
                        column = LINE_TILE * (first + tile)
                        direct.convolve_tile(
                            x, weight, kernel, bias, pad_top, pad_left, (image, row, column), (1, LINE_TILE), planes, y, slope
                        )


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _transform_gradients(dy, line, first, tiles, plane, planes):
    """Planes of A dy."""
    width, channels, flat = dy.shape[2], dy.shape[3], dy.reshape(-1)
    for tile in range(tiles):
        column = LINE_TILE * (first + tile)
        for c in range(0, channels, lanes(dy)):
            n, at = channels - c, (line * width + column) * channels + c
            d1 = load(flat, at + channels, n if column + 1 < width else 0)
            d2 = load(flat, at + 2 * channels, n if column + 2 < width else 0)
            store_vectors(planes, tile * channels + c, plane, lines_points.gradients(load(flat, at, n), d1, d2))


@precise
def _gradient(sums, size, taps, buffer, dweight):
    """dweight (K, I, O) += G' u, from the 5 planes u (B, I, O) in sums; size is I * O. Return whether all numbers are finite."""
    plane = line_blocks(taps) * size
    seen = zero(load_whole(sums, 0))
    for block in range(line_blocks(taps)):
        tap = LINE_TILE * block
        for c in range(0, size, lanes(sums)):
            u0, u1, u2, u3, u4 = load5(sums, block * size + c, plane)
            v0, v1, v2 = lines_points.gather(u0, u1, u2, u3, u4)
            at, n0 = tap * size + c, size - c
            n1, n2 = n0 if tap + 1 < taps else 0, n0 if tap + 2 < taps else 0
            v0, v1 = v0 + load(dweight, at, n0), v1 + load(dweight, at + size, n1)
            v2 = v2 + load(dweight, at + 2 * size, n2)
            seen = seen + first_lanes(v0 + v1 + v2, n0, buffer)
            store(dweight, at, n0, v0)
            store(dweight, at + size, n1, v1)
            store(dweight, at + 2 * size, n2, v2)
    return is_finite(seen)


@inlined
def backward_weights(x, dy, taps, pad_top, pad_left, start, stop, terms, scratch, partial):
    """The gradient of the weights in the first rows of partial (K * I + 1, O), from rows start to stop. Return whether it is finite.
    terms: as in direct.backward_weights, of tiles."""
    inputs, out_h, out_w, outputs = x.shape[3], dy.shape[1], dy.shape[2], dy.shape[3]
    blocks, total = line_blocks(taps), (out_w + LINE_TILE - 1) // LINE_TILE
    depth, size = blocks * inputs, inputs * outputs
    a_plane, b_plane = (LINE_TILES + blocks - 1) * inputs + PAD, LINE_TILES * outputs + PAD
    buffer, rest = scratch[: lanes(x)], scratch[lanes(x) :]
    planes, rest = rest[: LINE_PLANES * a_plane], rest[LINE_PLANES * a_plane :]
    gradients, sums = rest[: LINE_PLANES * b_plane], rest[LINE_PLANES * b_plane :][: LINE_PLANES * depth * outputs]
    sums[:] = 0
    partial[:] = 0
    finite, waiting = True, 0
    for line in range(start, stop):
        image, row = divmod(line, out_h)
        for first in range(0, total, LINE_TILES):
            tiles = min(LINE_TILES, total - first)
            _transform_inputs(x, image, row - pad_top, LINE_TILE * first - pad_left, tiles + blocks - 1, a_plane, planes)
            _transform_gradients(dy, line, first, tiles, b_plane, gradients)
            for p in range(LINE_PLANES):
                a, b, c = p * a_plane, p * b_plane, p * depth * outputs
                gemm(depth, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, tiles, sums, c, outputs, sums, c, outputs, outputs)
            waiting += tiles
            last = line + 1 == stop and first + tiles == total
            if 0 < terms <= waiting or last:
                finite = _gradient(sums, size, taps, buffer, partial.reshape(-1)) and finite
                if not last:
                    sums[:] = 0
                    waiting = 0
    return finite
