"""Convolution along lines, kernels of height 1 with stride 1, by minimal filtering: F(3, 3), 5 products instead of 9, once or twice.

A tile of 3 outputs y comes from 5 inputs d and 3 taps g as

    y = A' [(G g) * (B' d)]        where ' transposes, * multiplies elementwise (lines_points.py has the matrices)

With more than 3 taps, a tile has 9 outputs and a kernel blocks of 9 taps, with zeros after the last. Output 3a + b is the sum over i and j
of g[3i + j] d[3 (a + i) + b + j]: a convolution of 3 x 3 over a and b, of rows of 5 inputs that start every 3 pixels. So filtering is
nested, as in winograd.py, F(3 x 3, 3 x 3), 25 products instead of 81:

    y = A' [(G g G') * (B' d B)] A

A tile starts where the taps of a block do, so what block b of tile t reads is what block 0 of tile t + b reads: it is transformed once.
And for each of the 5 or 25 positions, the sum over channels and blocks is one matrix product (tiles, B * I) @ (B * I, O): row t of the
first matrix are the transformed inputs of tiles t to t + B - 1, so its rows overlap in memory. A line has B - 1 tiles more than its
outputs need, for the blocks of the last ones; their results are not used. So tiles of several short lines are filtered together.

The gradient with respect to g is the transposed formula, dg = G' [(A dy A') * (B' d B)] G, again with one product for each position.

Positions are planes in scratch, as in winograd.py: position i over rows, and j within a row, is plane 5 * i + j.
"""

from nbnet.kernels import chunks
from nbnet.kernels.conv2d import IN_CACHES, LANES, LINE_PLANES, LINE_SPAN, LINE_TILE, PAD, direct, line_blocks, line_tile, line_tiles, lines_points
from nbnet.kernels.conv2d.winograd import first_lanes, is_finite, panel_width, place_in_panels, store_vectors
from nbnet.kernels.conv2d.winograd_tiles import prefetch_run, rows_inside
from nbnet.kernels.cpu.compile import inlined, precise
from nbnet.kernels.cpu.epilogue import activated
from nbnet.kernels.cpu.gemm import gemm
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import load, load_whole, store, store_whole, zero


@precise
def _load5(array, at, step):
    a0, a1, a2 = load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)
    return a0, a1, a2, load_whole(array, at + 3 * step), load_whole(array, at + 4 * step)


@precise
def _pieces(array, first, second):
    """The first pieces of an array, with those sizes, and its rest."""
    return array[:first], array[first : first + second], array[first + second :]


@precise
def _load3(array, at, step):
    return load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)


@precise
def _prefetch_share(images, taps, first, tiles, per_line, plane, planes, to_write):
    """Prefetch about a plane's share of the numbers of tiles from number `first`: they arrive while the products of the plane run."""
    line, tile = divmod(first, per_line)
    share = line_tile(taps) * tiles * images.shape[3] // planes
    start = (line * images.shape[2] + line_tile(taps) * tile) * images.shape[3]
    prefetch_run(images.reshape(-1), start + plane * share, share, to_write)


@precise
def transform_weights(weight, taps, outputs, width, buffer, packed, part, parts):
    """packed[5 * i + j] = (G g G')[i, j], or packed[j] = (G g)[j], for each block and a part of the pairs of channels: weight (K, I, O) flat,
    packed (5 or 25, B * I * O in panels and padding)."""
    size, vector, plane, flat = weight.size // taps, lanes(weight), packed.shape[1], packed.reshape(-1)
    nested, depth = taps > LINE_TILE, line_blocks(taps) * size
    first, last = chunks.bounds(part, parts, -(-size // vector))
    for block in range(line_blocks(taps)):
        for c in range(first * vector, last * vector, vector):
            to, n = place_in_panels(block * size + c, depth, outputs, width), size - c
            for i in range(3 if nested else 1):
                tap = line_tile(taps) * block + LINE_TILE * i
                at, n1, n2 = tap * size + c, n if tap + 1 < taps else 0, n if tap + 2 < taps else 0
                g0, g1, g2 = load(weight, at, n if tap < taps else 0), load(weight, at + size, n1), load(weight, at + 2 * size, n2)
                if nested:
                    store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.filters(g0, g1, g2))
                else:
                    store_vectors(flat, to, plane, lines_points.filters(g0, g1, g2))
            for j in range(LINE_PLANES if nested else 0):
                g0, g1, g2 = _load3(buffer, j * vector, LINE_PLANES * vector)
                store_vectors(flat, to + j * plane, LINE_PLANES * plane, lines_points.filters(g0, g1, g2))


@precise
def _transform_inputs(x, nested, out_h, pad_top, pad_left, first, tiles, per_line, buffer, strip, plane, planes):
    """Planes of B' d B or B' d, of so many tiles from number `first`, counted over all lines. Tiles with padding are copied to strip first.
    Stores of whole vectors write beyond a tile's channels; the next tile overwrites that."""
    height, width, channels, flat, vector = x.shape[1], x.shape[2], x.shape[3], x.reshape(-1), lanes(x)
    rows = LINE_PLANES if nested else 1
    span = LINE_SPAN if nested else LINE_PLANES
    for slot in range(tiles):
        line, tile = divmod(first + slot, per_line)
        image, row = divmod(line, out_h)
        row, left = row - pad_top, (3 * LINE_TILE if nested else LINE_TILE) * tile - pad_left
        source, start = flat, ((image * height + row) * width + left) * channels
        if not (0 <= row < height and 0 <= left <= width - span):
            direct.fill(x, image, row, 1, left, span * channels, strip)
            source, start = strip, 0
        for c in range(0, channels, vector):
            to, n = slot * channels + c, channels - c
            for i in range(rows):
                at = start + LINE_TILE * i * channels + c
                d0, d1, d2 = load(source, at, n), load(source, at + channels, n), load(source, at + 2 * channels, n)
                d3, d4 = load(source, at + 3 * channels, n), load(source, at + 4 * channels, n)
                if nested:
                    store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.inputs(d0, d1, d2, d3, d4))
                else:
                    store_vectors(planes, to, plane, lines_points.inputs(d0, d1, d2, d3, d4))
            for j in range(LINE_PLANES if nested else 0):
                d0, d1, d2, d3, d4 = _load5(buffer, j * vector, LINE_PLANES * vector)
                store_vectors(planes, to + j * plane, LINE_PLANES * plane, lines_points.inputs(d0, d1, d2, d3, d4))


@precise
def _transform_outputs(products, nested, plane, first, tiles, per_line, bias, slope, buffer, y):
    """Tiles of y, from number `first`, from the planes of products. Return whether all sums are finite: the first vector of products for each
    tile becomes the sum of the tile before the bias, which is NaN or infinite if one number is."""
    width, channels, flat, vector = y.shape[2], y.shape[3], y.reshape(-1), lanes(y)
    wrong = zero(load_whole(products, 0))  # 0 times the sums: 0 or NaN
    for slot in range(tiles):
        line, tile = divmod(first + slot, per_line)
        left, seen = (3 * LINE_TILE if nested else LINE_TILE) * tile, zero(wrong)
        if left >= width:
            store_whole(products, slot * channels, seen)
            continue
        for c in range(0, channels, vector):
            n, total = channels - c, zero(wrong)
            b, source = load(bias, c, n), slot * channels + c
            for j in range(LINE_PLANES if nested else 0):
                m0, m1, m2, m3, m4 = _load5(products, source + j * plane, LINE_PLANES * plane)
                store_vectors(buffer, j * vector, LINE_PLANES * vector, lines_points.outputs(m0, m1, m2, m3, m4))
            for column in range(left, min(width, left + 3 * LINE_TILE) if nested else left + 1, LINE_TILE):
                if nested:
                    m0, m1, m2, m3, m4 = _load5(buffer, LINE_PLANES * (column - left) // LINE_TILE * vector, vector)
                else:
                    m0, m1, m2, m3, m4 = _load5(products, source, plane)
                v0, v1, v2 = lines_points.outputs(m0, m1, m2, m3, m4)
                total = total + (v0 + v1 + v2)
                v0, v1, v2 = v0 + b, v1 + b, v2 + b
                if slope != 1:
                    v0, v1, v2 = activated(v0, slope), activated(v1, slope), activated(v2, slope)
                at = (line * width + column) * channels + c
                store(flat, at, n, v0)
                store(flat, at + channels, n if column + 1 < width else 0, v1)
                store(flat, at + 2 * channels, n if column + 2 < width else 0, v2)
            seen = seen + first_lanes(total, n, buffer)
        store_whole(products, slot * channels, seen)
        wrong = wrong + zero(seen) * seen
    return is_finite(wrong)


@inlined
def convolve(x, weight, kernel, packed, bias, pad_top, pad_left, start, stop, scratch, y, slope=1.0):
    """Rows start to stop, counted over all images, of y = act(bias + x convolved with weight (K * I * O,)), which `packed` holds
    transformed. kernel: 1, K. Tiles with sums that are not finite are computed directly."""
    inputs, out_h, out_w, outputs, taps, count = x.shape[3], y.shape[1], y.shape[2], y.shape[3], kernel[1], packed.shape[0]
    blocks, nested = line_blocks(taps), taps > LINE_TILE
    per_line, together = (out_w - 1) // line_tile(taps) + blocks, line_tiles(taps, inputs, outputs)
    depth, width, end = blocks * inputs, panel_width(x, outputs), stop * per_line - (blocks - 1)
    a_plane, c_plane = (together + blocks - 1) * inputs + PAD, together * outputs + PAD
    buffer, strip, rest = _pieces(scratch, count * lanes(x), LINE_SPAN * inputs + LANES)
    planes, rest = rest[: count * a_plane], rest[count * a_plane :]
    products, zeros = rest[: count * c_plane], rest[count * c_plane :][:outputs]
    weights = packed.reshape(-1)
    zeros[:] = 0
    prefetches = x.nbytes + y.nbytes > IN_CACHES
    for first in range(start * per_line, end, together):
        tiles = min(together, end - first)
        _transform_inputs(x, nested, out_h, pad_top, pad_left, first, tiles + blocks - 1, per_line, buffer, strip, a_plane, planes)
        for p in range(count):
            if prefetches:
                _prefetch_share(x, taps, first + together, together, per_line, p, count, False)
                _prefetch_share(y, taps, first, together, per_line, p, count, True)
            a, b, c = p * a_plane, p * packed.shape[1], p * c_plane
            for left in range(0, outputs, width):
                to, there = c + left, b + left * depth
                gemm(tiles, planes, a, 0, inputs, 1, weights, there, 0, width, 1, depth, zeros, 0, 0, products, to, outputs, width)
        if not _transform_outputs(products, nested, c_plane, first, tiles, per_line, bias, slope, buffer, y):
            for slot in range(tiles):
                if not is_finite(load_whole(products, slot * outputs)):
                    line, tile = divmod(first + slot, per_line)
                    image, row = divmod(line, out_h)
                    direct.convolve_tile(x, weight, kernel, bias, pad_top, pad_left, image, row, line_tile(taps) * tile, planes, y, slope)


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _transform_gradients(dy, nested, first, tiles, per_line, buffer, plane, planes):
    """Planes of A dy A' or A dy; zeros for tiles beyond a line."""
    width, channels, flat, vector = dy.shape[2], dy.shape[3], dy.reshape(-1), lanes(dy)
    for slot in range(tiles):
        line, tile = divmod(first + slot, per_line)
        for c in range(0, channels, vector):
            to = slot * channels + c
            for i in range(3 if nested else 1):
                column = (3 * LINE_TILE if nested else LINE_TILE) * tile + LINE_TILE * i
                n0, n1, n2, _, _, _ = rows_inside(column, width, channels - c)
                at = (line * width + column) * channels + c
                d0, d1, d2 = load(flat, at, n0), load(flat, at + channels, n1), load(flat, at + 2 * channels, n2)
                if nested:
                    store_vectors(buffer, LINE_PLANES * i * vector, vector, lines_points.gradients(d0, d1, d2))
                else:
                    store_vectors(planes, to, plane, lines_points.gradients(d0, d1, d2))
            for j in range(LINE_PLANES if nested else 0):
                d0, d1, d2 = _load3(buffer, j * vector, LINE_PLANES * vector)
                store_vectors(planes, to + j * plane, LINE_PLANES * plane, lines_points.gradients(d0, d1, d2))


@precise
def _gradient(sums, size, taps, buffer, dweight):
    """dweight (K, I, O) += G' u G or G' u, from the planes u (B, I, O) in sums; size is I * O. Return whether all numbers are finite."""
    plane, nested, vector = line_blocks(taps) * size, taps > LINE_TILE, lanes(sums)
    seen = zero(load_whole(sums, 0))
    for block in range(line_blocks(taps)):
        for c in range(0, size, vector):
            source, n, total = block * size + c, size - c, zero(seen)
            for j in range(LINE_PLANES if nested else 0):
                u0, u1, u2, u3, u4 = _load5(sums, source + j * plane, LINE_PLANES * plane)
                store_vectors(buffer, j * vector, LINE_PLANES * vector, lines_points.gather(u0, u1, u2, u3, u4))
            for i in range(3 if nested else 1):
                tap = line_tile(taps) * block + LINE_TILE * i
                if nested:
                    u0, u1, u2, u3, u4 = _load5(buffer, LINE_PLANES * i * vector, vector)
                else:
                    u0, u1, u2, u3, u4 = _load5(sums, source, plane)
                v0, v1, v2 = lines_points.gather(u0, u1, u2, u3, u4)
                at, n0, n1, n2 = tap * size + c, n if tap < taps else 0, n if tap + 1 < taps else 0, n if tap + 2 < taps else 0
                v0, v1 = v0 + load(dweight, at, n0), v1 + load(dweight, at + size, n1)
                v2 = v2 + load(dweight, at + 2 * size, n2)
                total = total + (v0 + v1 + v2)
                store(dweight, at, n0, v0)
                store(dweight, at + size, n1, v1)
                store(dweight, at + 2 * size, n2, v2)
            seen = seen + first_lanes(total, n, buffer)
    return is_finite(seen)


@inlined
def backward_weights(x, dy, taps, pad_top, pad_left, start, stop, terms, scratch, partial):
    """The gradient of the weights in the first rows of partial (K * I + 1, O), from rows start to stop. Return whether it is finite.
    terms: as in direct.backward_weights, of tiles."""
    inputs, out_h, out_w, outputs = x.shape[3], dy.shape[1], dy.shape[2], dy.shape[3]
    blocks, nested = line_blocks(taps), taps > LINE_TILE
    count = LINE_PLANES * (LINE_PLANES if nested else 1)
    per_line, together = (out_w - 1) // line_tile(taps) + blocks, line_tiles(taps, inputs, outputs)
    depth, size, end = blocks * inputs, inputs * outputs, stop * per_line - (blocks - 1)
    a_plane, b_plane = (together + blocks - 1) * inputs + PAD, together * outputs + PAD
    buffer, strip, rest = _pieces(scratch, count * lanes(x), LINE_SPAN * inputs + LANES)
    planes, rest = rest[: count * a_plane], rest[count * a_plane :]
    gradients, sums = rest[: count * b_plane], rest[count * b_plane :][: count * depth * outputs]
    sums[:] = 0
    partial[:] = 0
    finite, waiting = True, 0
    prefetches = x.nbytes + dy.nbytes > IN_CACHES
    for first in range(start * per_line, end, together):
        tiles = min(together, end - first)
        _transform_inputs(x, nested, out_h, pad_top, pad_left, first, tiles + blocks - 1, per_line, buffer, strip, a_plane, planes)
        _transform_gradients(dy, nested, first, tiles, per_line, buffer, b_plane, gradients)
        for p in range(count):
            if prefetches:
                _prefetch_share(x, taps, first + together, together, per_line, p, count, False)
                _prefetch_share(dy, taps, first + together, together, per_line, p, count, False)
            a, b, c = p * a_plane, p * b_plane, p * depth * outputs
            gemm(depth, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, tiles, sums, c, outputs, sums, c, outputs, outputs)
        waiting += tiles
        last = first + together >= end
        if 0 < terms <= waiting or last:
            finite = _gradient(sums, size, taps, buffer, partial.reshape(-1)) and finite
            if not last:
                sums[:] = 0
                waiting = 0
    return finite
