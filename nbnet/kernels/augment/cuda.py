"""Augmentation on CUDA: a thread computes one element of the output. Neighbours read the same pixels, from the cache."""

import numpy as np
from numba import cuda

from nbnet.kernels.augment.sampling import inside, weights
from nbnet.kernels.gpu.compile import SIMULATED, formula, kernel
from nbnet.kernels.gpu.launch import THREADS, divide, run
from nbnet.kernels.philox import philox

if SIMULATED:
    _philox, inside, weights = philox.py_func, inside.py_func, weights.py_func

    def philox(*words):
        with np.errstate(over="ignore"):  # 32-bit sums wrap around
            return _philox(*words)


@formula
def _where(shape, at):
    """Image, row, column and channel of an element."""
    rest, c = divide(at, shape[3])
    rest, w = divide(rest, shape[2])
    n, h = divide(rest, shape[1])
    return n, h, w, c


@formula
def _place(places, first, place, size, border):
    place = inside(place, size, border)
    return place if place < 0 else places[first + place]


@formula
def _interpolated(x, shape, image, h, w, c, places, line, affine, at, border, of_bytes, zero):
    """Channel c between four pixels. image: its offset in x; line: of its places before the affine map; at: of its six numbers."""
    T = zero.dtype.type
    height, width, channels = shape[1], shape[2], shape[3]
    across = affine[at] * w + affine[at + 1] * h + affine[at + 2]
    down = affine[at + 3] * w + affine[at + 4] * h + affine[at + 5]
    left, above = across >> 24, down >> 24
    right, below = _place(places, line + height, left + 1, width, border), _place(places, line, above + 1, height, border)
    left, above = _place(places, line + height, left, width, border), _place(places, line, above, height, border)
    of_left, of_right = weights(across, left, right)
    of_above, of_below = weights(down, above, below)
    upper, lower = image + max(above, 0) * width * channels + c, image + max(below, 0) * width * channels + c
    left, right = max(left, 0) * channels, max(right, 0) * channels
    p, q, r, s = x[upper + left], x[upper + right], x[lower + left], x[lower + right]
    a, b, c, d = of_above * of_left, of_above * of_right, of_below * of_left, of_below * of_right
    if of_bytes:
        total = a * np.int64(p) + b * np.int64(q) + c * np.int64(r) + d * np.int64(s)
        return T((total + 2048) >> 12) / T(16)
    return (((T(a) * T(p) + T(b) * T(q)) + T(c) * T(r)) + T(d) * T(s)) / T(65536)


@formula
def _value(x, shape, image, n, h, w, c, places, affine, moves, border, of_bytes, zero):
    """Channel c of the moved picture. h, w: of the source, or before the affine map. zero: an array of the output's dtype."""
    T = zero.dtype.type
    if h < 0 or w < 0:
        return T(0)
    if moves:
        line = (shape[0] + n) * (shape[1] + shape[2])
        return _interpolated(x, shape, image, h, w, c, places, line, affine, 6 * n, border, of_bytes, zero)
    return T(x[image + (h * shape[2] + w) * shape[3] + c])


@formula
def _word(element, row, seed, stream, epoch):
    k0, k1 = np.uint32(seed & np.uint64(0xFFFFFFFF)), np.uint32(seed >> np.uint64(32))
    a, b, c, d = philox(np.uint32(element >> 2), np.uint32(row), stream, epoch, k0, k1)
    part = element & 3
    return a if part == 0 else b if part == 1 else c if part == 2 else d


@kernel
def _augment(
    x, shape, of_bytes, rows, ids, places, affine, moves, border, colour, colours, noise, noisy, seed, stream, epoch,
    shift, divisor, top, boxes, count, y, size,
):  # fmt: skip
    at = cuda.grid(1)
    if at < size:
        n, oh, ow, c = _where(shape, at)
        line, image = n * (shape[1] + shape[2]), rows[n] * (shape[1] * shape[2] * shape[3])
        h, w, zero = places[line + oh], places[line + shape[1] + ow], y.dtype.type(0)
        if colours:
            mine = (n * shape[3] + c) * (shape[3] + 1)
            v = _value(x, shape, image, n, h, w, 0, places, affine, moves, border, of_bytes, y) * colour[mine]
            for k in range(1, shape[3]):
                v = v + _value(x, shape, image, n, h, w, k, places, affine, moves, border, of_bytes, y) * colour[mine + k]
            v = v + colour[mine + shape[3]]
            v = v if v > zero else zero
            v = v if v < top else top
        else:
            v = _value(x, shape, image, n, h, w, c, places, affine, moves, border, of_bytes, y)
        if noisy:
            element = at - n * (shape[1] * shape[2] * shape[3])
            v = v + noise[_word(element, ids[n], seed, stream, epoch) >> np.uint32(20)]
        v = (v - shift[c]) / divisor[c]
        for k in range(count):
            box = 4 * (k * shape[0] + n)
            if boxes[box] <= oh < boxes[box + 1] and boxes[box + 2] <= ow < boxes[box + 3]:
                v = zero
        y[at] = v


def apply(x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y):
    if y.size:
        seed, stream, epoch = counter
        words = seed, np.uint32(stream), np.uint32(epoch)
        moved = places, affine, bool(affine.size), border
        coloured = colour, bool(colour.size), noise, bool(noise.size), *words
        last = shift, divisor, y.dtype.type(top), boxes, boxes.shape[0], y, y.size
        run(_augment, -(-y.size // THREADS), THREADS, x, y.shape, x.dtype == np.uint8, rows, ids, *moved, *coloured, *last)


@kernel
def _mix(z, share, box, shape, y, size):
    at = cuda.grid(1)
    if at < size:
        n, h, w, _ = _where(shape, at)
        own = share[n]
        if box[4 * n] <= h < box[4 * n + 1] and box[4 * n + 2] <= w < box[4 * n + 3]:
            y[at] = z[at]
        elif own != 1:
            y[at] = own * np.float64(y[at]) + (1 - own) * np.float64(z[at])


def mix(z, share, box, y):
    if y.size:
        run(_mix, -(-y.size // THREADS), THREADS, z, share, box, y.shape, y, y.size)
