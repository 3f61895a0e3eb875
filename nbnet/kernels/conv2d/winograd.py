"""Convolution of 3 x 3 with stride 1 by minimal filtering, F(4 x 4, 3 x 3): 36 products where the definition has 144.

Lavin and Gray 2016, "Fast algorithms for convolutional neural networks", after Winograd 1980. A tile of 4 x 4 outputs y comes
from 6 x 6 inputs d and the 3 x 3 filter g as

    y = A' [(G g G') * (B' d B)] A        where ' transposes, * multiplies number by number

The matrices evaluate polynomials at points: 0, +-p, +-q and infinity (Toom and Cook). With P = p^2 and Q = q^2,

    B' = PQ   0  -P-Q   0   1  0    G =    1/PQ   (1  0  0)            A' = 1  1   1   1   1   0
          0  -pQ   -Q   p   1  0        1/2P(P-Q) (1  p  P)                 0  p  -p   q  -q   0
          0   pQ   -Q  -p   1  0        1/2P(P-Q) (1 -p  P)                 0  P   P   Q   Q   0
          0  -qP   -P   q   1  0        1/2Q(Q-P) (1  q  Q)                 0 pP -pP  qQ -qQ   1
          0   qP   -P  -q   1  0        1/2Q(Q-P) (1 -q  Q)
          0   PQ    0 -P-Q  0  1                  (0  0  1)

Points of nearly the same size lose least to rounding: with p = 3/4, q = 3/2 the error in float32 is about twice that of the plain
sum, a quarter of what Lavin and Gray's 1 and 2 give (docs/performance.md has the figures).

Over channels the product is, for each of the 36 positions, a matrix product (tiles, I) @ (I, O): the register tiles of
nbnet.kernels.simd run it. The gradient with respect to g is the same formula read backwards: dg = G' [(A dy A') * (B' d B)] G.

The transforms are compiled without fastmath, so that their sums have one order, in the serial and in the parallel kernel.
Positions are planes in scratch: plane 6 * i + j holds (TILES, channels) and some padding. A transform goes down the columns of a
tile first, then along its rows; what lies between stays in a small buffer.
"""

from nbnet.kernels.caches import prefetch, prefetch_to_write
from nbnet.kernels.compile import inlined, precise
from nbnet.kernels.conv2d import EDGE, IN_CACHES, PAD, PLANES, TILES
from nbnet.kernels.epilogue import activated
from nbnet.kernels.products import multiply
from nbnet.kernels.simd import lanes
from nbnet.kernels.vecmath import fma
from nbnet.kernels.vector import load, load_whole, splat_as, store, store_whole, zero

_p, _q = 0.75, 1.5
_P, _Q = _p * _p, _q * _q
_AT_0, _AT_P, _AT_Q = 1 / (_P * _Q), 1 / (2 * _P * (_P - _Q)), 1 / (2 * _Q * (_Q - _P))  # the factors of G's rows


@precise
def _times(number, vector, addend):
    """number * vector + addend, rounded once."""
    return fma(splat_as(number, vector), vector, addend)


@precise
def _inputs(d0, d1, d2, d3, d4, d5):
    """B' times a column."""
    even_p, odd_p = _times(-_Q, d2, d4), _times(-_Q, d1, d3)
    even_q, odd_q = _times(-_P, d2, d4), _times(-_P, d1, d3)
    first = _times(_P * _Q, d0, _times(-_P - _Q, d2, d4))
    last = _times(_P * _Q, d1, _times(-_P - _Q, d3, d5))
    return first, _times(_p, odd_p, even_p), _times(-_p, odd_p, even_p), _times(_q, odd_q, even_q), _times(-_q, odd_q, even_q), last


@precise
def _outputs(m0, m1, m2, m3, m4, m5):
    """A' times a column."""
    sum_p, sum_q, odd_p, odd_q = m1 + m2, m3 + m4, m1 - m2, m3 - m4
    y1 = _times(_q, odd_q, splat_as(_p, odd_p) * odd_p)
    y2 = _times(_Q, sum_q, splat_as(_P, sum_p) * sum_p)
    return m0 + sum_p + sum_q, y1, y2, _times(_q * _Q, odd_q, _times(_p * _P, odd_p, m5))


@precise
def _filters(g0, g1, g2):
    """G times a column."""
    even_p, even_q = _times(_P, g2, g0), _times(_Q, g2, g0)
    at_p, at_q = splat_as(_AT_P, g0), splat_as(_AT_Q, g0)
    p0, p1 = _times(_p, g1, even_p) * at_p, _times(-_p, g1, even_p) * at_p
    q0, q1 = _times(_q, g1, even_q) * at_q, _times(-_q, g1, even_q) * at_q
    return splat_as(_AT_0, g0) * g0, p0, p1, q0, q1, g2


@precise
def _gradients(d0, d1, d2, d3):
    """A times a column."""
    even_p, odd_p = _times(_P, d2, d0), _times(_p * _P, d3, splat_as(_p, d1) * d1)
    even_q, odd_q = _times(_Q, d2, d0), _times(_q * _Q, d3, splat_as(_q, d1) * d1)
    return d0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, d3


@precise
def _gather(u0, u1, u2, u3, u4, u5):
    """G' times a column."""
    at_p, at_q = splat_as(_AT_P, u1), splat_as(_AT_Q, u3)
    sum_p, odd_p, sum_q, odd_q = (u1 + u2) * at_p, (u1 - u2) * at_p, (u3 + u4) * at_q, (u3 - u4) * at_q
    g1 = _times(_q, odd_q, splat_as(_p, odd_p) * odd_p)
    return _times(_AT_0, u0, sum_p + sum_q), g1, _times(_Q, sum_q, _times(_P, sum_p, u5))


# ------------------------------------------------------------------------------------- a column or a row of vectors


@precise
def _load6(array, at, step):
    a0, a1, a2 = load_whole(array, at), load_whole(array, at + step), load_whole(array, at + 2 * step)
    return a0, a1, a2, load_whole(array, at + 3 * step), load_whole(array, at + 4 * step), load_whole(array, at + 5 * step)


@precise
def _store(array, at, step, vectors):
    for k, value in enumerate(vectors):
        store_whole(array, at + k * step, value)


@precise
def _rows_inside(top, height, count):
    """count for each of the six rows from `top` on that is inside an image, else 0."""
    n0, n1 = count if 0 <= top < height else 0, count if 0 <= top + 1 < height else 0
    n2, n3 = count if 0 <= top + 2 < height else 0, count if 0 <= top + 3 < height else 0
    return n0, n1, n2, n3, count if 0 <= top + 4 < height else 0, count if 0 <= top + 5 < height else 0


@precise
def _position(tile, down, across):
    """Image, row and column of a tile counted over all images."""
    row, column = divmod(tile, across)
    image, row = divmod(row, down)
    return image, EDGE * row, EDGE * column


@precise
def _ask(images, first, down, across, plane, to_write):
    """Ask for a plane's share of the numbers of the TILES tiles from number `first` on, about: the products of a plane take longer than
    their arrival."""
    image, top, left = _position(first, down, across)
    share = images.size // (images.shape[0] * down * across) * TILES // PLANES
    start = ((image * images.shape[1] + top) * images.shape[2] + left) * images.shape[3] + plane * share
    flat = images.reshape(-1)
    for at in range(start, start + share, 64 // images.itemsize):
        if to_write:
            prefetch_to_write(flat, at)
        else:
            prefetch(flat, at)


@precise
def _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, buffer, planes):
    """Planes of B' d B, of `tiles` tiles from number `first` on."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(-1)
    plane, vector, row = TILES * channels + PAD, lanes(x), width * channels
    for t in range(tiles):
        image, top, left = _position(first + t, down, across)
        top, left = top - pad_top, left - pad_left
        pixel = (image * height + top) * width + left
        for c in range(0, channels, vector):
            n0, n1, n2, n3, n4, n5 = _rows_inside(top, height, channels - c)
            for j in range(6):
                at = (pixel + j) * channels + c
                if 0 <= left + j < width:
                    d0, d1, d2 = load(flat, at, n0), load(flat, at + row, n1), load(flat, at + 2 * row, n2)
                    d3, d4, d5 = load(flat, at + 3 * row, n3), load(flat, at + 4 * row, n4), load(flat, at + 5 * row, n5)
                    v = _inputs(d0, d1, d2, d3, d4, d5)
                else:
                    nothing = zero(load(flat, at, 0))
                    v = nothing, nothing, nothing, nothing, nothing, nothing
                _store(buffer, j * vector, 6 * vector, v)
            for i in range(6):
                d0, d1, d2, d3, d4, d5 = _load6(buffer, 6 * i * vector, vector)
                _store(planes, 6 * i * plane + t * channels + c, plane, _inputs(d0, d1, d2, d3, d4, d5))


# ------------------------------------------------------------------------------------------- forward, backward_data


@precise
def transform_weights(weight, buffer, packed):
    """packed[6 * i + j] = (G g G')[i, j] for each pair of channels: weight (9, I, O) flat, packed (36, I * O and padding)."""
    size, vector, plane = weight.size // 9, lanes(weight), packed.shape[1]
    flat = packed.reshape(-1)
    for c in range(0, size, vector):
        n = size - c
        for k in range(3):
            at = k * size + c
            column = load(weight, at, n), load(weight, at + 3 * size, n), load(weight, at + 6 * size, n)
            _store(buffer, k * vector, 3 * vector, _filters(*column))
        for i in range(6):
            at = 3 * i * vector
            row = load_whole(buffer, at), load_whole(buffer, at + vector), load_whole(buffer, at + 2 * vector)
            _store(flat, 6 * i * plane + c, plane, _filters(*row))


@precise
def _transform_outputs(products, first, tiles, down, across, bias, slope, buffer, y):
    out_h, out_w, outputs = y.shape[1], y.shape[2], y.shape[3]
    flat = y.reshape(-1)
    plane, vector = TILES * outputs + PAD, lanes(y)
    for t in range(tiles):
        image, top, left = _position(first + t, down, across)
        for c in range(0, outputs, vector):
            n = outputs - c
            for j in range(6):
                m0, m1, m2, m3, m4, m5 = _load6(products, j * plane + t * outputs + c, 6 * plane)
                _store(buffer, j * vector, 6 * vector, _outputs(m0, m1, m2, m3, m4, m5))
            b = load(bias, c, n)
            for i in range(min(EDGE, out_h - top)):
                m0, m1, m2, m3, m4, m5 = _load6(buffer, 6 * i * vector, vector)
                at = ((image * out_h + top + i) * out_w + left) * outputs + c
                v0, v1, v2, v3 = _outputs(m0, m1, m2, m3, m4, m5)
                v0, v1, v2, v3 = v0 + b, v1 + b, v2 + b, v3 + b
                if slope != 1:
                    v0, v1, v2, v3 = activated(v0, slope), activated(v1, slope), activated(v2, slope), activated(v3, slope)
                if n >= vector and left + EDGE <= out_w:
                    _store(flat, at, outputs, (v0, v1, v2, v3))
                else:
                    for j, value in enumerate((v0, v1, v2, v3)):
                        store(flat, at + j * outputs, n if left + j < out_w else 0, value)


@inlined
def convolve(x, packed, bias, pad_top, pad_left, start, stop, scratch, y, slope=1.0):
    """Rows of tiles start to stop, counted over all images, of y = act(bias + x convolved with the weights that `packed` was made of)."""
    inputs, outputs = x.shape[3], y.shape[3]
    down, across = (y.shape[1] + EDGE - 1) // EDGE, (y.shape[2] + EDGE - 1) // EDGE
    a_plane, c_plane = TILES * inputs + PAD, TILES * outputs + PAD
    buffer, rest = scratch[: PLANES * lanes(x)], scratch[PLANES * lanes(x) :]
    planes, rest = rest[: PLANES * a_plane], rest[PLANES * a_plane :]
    products, zeros = rest[: PLANES * c_plane], rest[PLANES * c_plane :][:outputs]
    weights = packed.reshape(-1)
    zeros[:] = 0
    asks = x.nbytes + y.nbytes > IN_CACHES
    for first in range(start * across, stop * across, TILES):
        tiles = min(TILES, stop * across - first)
        _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, buffer, planes)
        for p in range(PLANES):
            if asks:
                _ask(x, first + TILES, down, across, p, False)
                _ask(y, first, down, across, p, True)
            a, b, c = p * a_plane, p * packed.shape[1], p * c_plane
            multiply(tiles, planes, a, 0, inputs, 1, weights, b, 0, outputs, 1, inputs, zeros, 0, 0, products, c, outputs, outputs)
        _transform_outputs(products, first, tiles, down, across, bias, slope, buffer, y)


# -------------------------------------------------------------------------------------------------- backward_weights


@precise
def _transform_gradients(dy, first, tiles, down, across, buffer, planes):
    """Planes of A dy A'."""
    out_h, out_w, outputs = dy.shape[1], dy.shape[2], dy.shape[3]
    flat = dy.reshape(-1)
    plane, vector, row = TILES * outputs + PAD, lanes(dy), out_w * outputs
    for t in range(tiles):
        image, top, left = _position(first + t, down, across)
        for c in range(0, outputs, vector):
            n0, n1, n2, n3, _, _ = _rows_inside(top, out_h, outputs - c)
            for j in range(EDGE):
                at = ((image * out_h + top) * out_w + left + j) * outputs + c
                i = 1 if left + j < out_w else 0
                d0, d1 = load(flat, at, n0 * i), load(flat, at + row, n1 * i)
                d2, d3 = load(flat, at + 2 * row, n2 * i), load(flat, at + 3 * row, n3 * i)
                _store(buffer, j * vector, EDGE * vector, _gradients(d0, d1, d2, d3))
            for i in range(6):
                at = EDGE * i * vector
                d0, d1 = load_whole(buffer, at), load_whole(buffer, at + vector)
                d2, d3 = load_whole(buffer, at + 2 * vector), load_whole(buffer, at + 3 * vector)
                _store(planes, 6 * i * plane + t * outputs + c, plane, _gradients(d0, d1, d2, d3))


@precise
def _gradient(sums, size, buffer, dweight):
    """dweight (9, I, O) = G' u G, from the 36 planes u of `size` numbers."""
    vector = lanes(sums)
    for c in range(0, size, vector):
        for j in range(6):
            u0, u1, u2, u3, u4, u5 = _load6(sums, j * size + c, 6 * size)
            _store(buffer, j * vector, 6 * vector, _gather(u0, u1, u2, u3, u4, u5))
        for i in range(3):
            u0, u1, u2, u3, u4, u5 = _load6(buffer, 6 * i * vector, vector)
            for j, value in enumerate(_gather(u0, u1, u2, u3, u4, u5)):
                store(dweight, (3 * i + j) * size + c, size - c, value)


@inlined
def backward_weights(x, dy, pad_top, pad_left, start, stop, scratch, partial):
    """The gradient of the weights in the first rows of partial (9 * I + 1, O), from rows of tiles start to stop."""
    inputs, outputs = x.shape[3], dy.shape[3]
    down, across = (dy.shape[1] + EDGE - 1) // EDGE, (dy.shape[2] + EDGE - 1) // EDGE
    a_plane, b_plane = TILES * inputs + PAD, TILES * outputs + PAD
    buffer, rest = scratch[: PLANES * lanes(x)], scratch[PLANES * lanes(x) :]
    planes, rest = rest[: PLANES * a_plane], rest[PLANES * a_plane :]
    gradients, sums = rest[: PLANES * b_plane], rest[PLANES * b_plane :]
    sums[:] = 0
    asks = x.nbytes + dy.nbytes > IN_CACHES
    for first in range(start * across, stop * across, TILES):
        tiles = min(TILES, stop * across - first)
        _transform_inputs(x, first, tiles, down, across, pad_top, pad_left, buffer, planes)
        _transform_gradients(dy, first, tiles, down, across, buffer, gradients)
        for p in range(PLANES):
            if asks:
                _ask(x, first + TILES, down, across, p, False)
                _ask(dy, first + TILES, down, across, p, False)
            a, b, c = p * a_plane, p * b_plane, p * inputs * outputs
            multiply(inputs, planes, a, 0, 1, inputs, gradients, b, 0, outputs, 1, tiles, sums, c, outputs, sums, c, outputs, outputs)
    _gradient(sums, inputs * outputs, buffer, partial.reshape(-1))
