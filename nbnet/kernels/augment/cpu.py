"""Augmentation on the CPU, line by line: a line of the moved picture is put together in the cache, changed there, and written once.

The bodies are `precise`, so that all backends round alike: with fastmath, LLVM may multiply by the reciprocal of the divisor.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nbnet.kernels import chunks
from nbnet.kernels.augment.sampling import inside, weights
from nbnet.kernels.cpu.compile import precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.philox_vector import COUNTERS, LANES, random_words, store_words
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vector import address_of, load, load_whole, splat_as, splat_value, store, where, zero

BLOCK = 4 * COUNTERS  # elements whose random words are computed at once
COPY, INTERPOLATE, COLOUR, NOISE = 2, 12, 6, 6  # elementary operations per element, for the choice of chunks
ONE, TWO = np.uint64(1), np.uint64(2)

# ------------------------------------------------------------------------------------------------------- apply


@precise
def _copy(source, base, places, n, height, channels, line):
    """A line of pixels: runs of them that follow each other in the source, in its order or reversed."""
    width, at = places.shape[2] - height, 0
    while at < width:
        first, pixels = places[0, n, height + at], 1
        to = max(at * channels, 0)  # LLVM then knows that no index is negative, and makes vector code
        if base < 0 or first < 0:
            for c in range(channels):
                line[to + c] = 0
        elif at + 1 < width and places[0, n, height + at + 1] == first - 1 and first > 0:
            while at + pixels < width and 0 <= places[0, n, height + at + pixels] == first - pixels:
                pixels += 1
            begin = max(base + (first - pixels + 1) * channels, 0)
            if channels == 3:
                last = 3 * (pixels - 1)
                for i in range(0, 3 * pixels, 3):
                    line[to + i] = source[begin + last - i]
                    line[to + i + 1] = source[begin + last - i + 1]
                    line[to + i + 2] = source[begin + last - i + 2]
            else:
                for p in range(pixels):
                    for c in range(channels):
                        line[to + p * channels + c] = source[begin + (pixels - 1 - p) * channels + c]
        else:
            while at + pixels < width and places[0, n, height + at + pixels] == first + pixels:
                pixels += 1
            begin = max(base + first * channels, 0)
            for i in range(pixels * channels):
                line[to + i] = source[begin + i]
        at += pixels


@precise
def _place(places, n, first, place, size, border):
    """The pixel of the source at a place of the picture that places[1] give; -1 is black."""
    place = inside(place, size, border)
    return place if place < 0 else places[1, n, first + place]


@precise
def _blend(source, line, to, p, q, r, s, a, b, c, d):
    """line[to] = the sum of the source's numbers at p, q, r and s with the weights a to d."""
    T = line.dtype.type
    if source.itemsize == 1:
        total = np.int32(a) * np.int32(source[p]) + np.int32(b) * np.int32(source[q])
        total += np.int32(c) * np.int32(source[r]) + np.int32(d) * np.int32(source[s])
        line[to] = T((total + 2048) >> 12) / T(16)
    else:
        total_of = ((T(a) * T(source[p]) + T(b) * T(source[q])) + T(c) * T(source[r])) + T(d) * T(source[s])
        line[to] = total_of / T(65536)


@intrinsic
def _blend_rgb(context, source, line, to, p, q, r, s, a, b, c, d):
    """_blend of three bytes at once, as four: one more is read, and one more written, which the next pixel overwrites."""

    def generate(context, builder, signature, args):
        if source.dtype != types.uint8:  # the caller does not come here
            return context.get_dummy_value()
        whole, number = ir.VectorType(ir.IntType(32), 4), ir.IntType(32)
        total = ir.Constant(whole, [2048] * 4)
        for at, weight in zip(args[3:7], args[7:]):
            pointer = address_of(context, builder, source, args[0], at)
            four = builder.load(builder.bitcast(pointer, ir.VectorType(ir.IntType(8), 4).as_pointer()))
            four.align = 1
            shares = splat_value(builder, builder.trunc(weight, number), whole)
            total = builder.add(total, builder.mul(builder.zext(four, whole), shares))
        element = context.get_value_type(line.dtype)
        floats = builder.sitofp(builder.ashr(total, ir.Constant(whole, [12] * 4)), ir.VectorType(element, 4))
        floats = builder.fmul(floats, ir.Constant(floats.type, [1 / 16] * 4))
        target = builder.bitcast(address_of(context, builder, line, args[1], args[2]), floats.type.as_pointer())
        builder.store(floats, target).align = line.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(source, line, to, p, q, r, s, a, b, c, d), generate


@precise
def _interpolate(source, base, h, places, n, height, channels, affine, border, line):
    """A line of pixels between others. base: of the image in the source. Unsigned indices are not compared with 0, as signed ones are."""
    width = places.shape[2] - height
    # The last image has no byte behind it, which would be read.
    in_vectors = source.itemsize == 1 and channels == 3 and base + height * width * channels < source.size
    a0, a1, a2, a3, a4, a5 = affine[n, 0], affine[n, 1], affine[n, 2], affine[n, 3], affine[n, 4], affine[n, 5]
    for at in range(width):
        w, to = places[0, n, height + at], np.uint64(at * channels)
        if h < 0 or w < 0:
            for _ in range(channels):
                line[to] = 0
                to += ONE
            continue
        across, down = a0 * w + a1 * h + a2, a3 * w + a4 * h + a5
        left, above = across >> 24, down >> 24
        if 0 <= left < width - 1 and 0 <= above < height - 1:
            right, below = places[1, n, np.uint64(height + left + 1)], places[1, n, np.uint64(above + 1)]
            left, above = places[1, n, np.uint64(height + left)], places[1, n, np.uint64(above)]
        else:
            right, below = _place(places, n, height, left + 1, width, border), _place(places, n, 0, above + 1, height, border)
            left, above = _place(places, n, height, left, width, border), _place(places, n, 0, above, height, border)
        of_left, of_right = weights(across, left, right)
        of_above, of_below = weights(down, above, below)
        a, b, c, d = of_above * of_left, of_above * of_right, of_below * of_left, of_below * of_right
        left, right = base + max(left, 0) * channels, base + max(right, 0) * channels
        above, below = max(above, 0) * width * channels, max(below, 0) * width * channels
        p, q, r, s = np.uint64(above + left), np.uint64(above + right), np.uint64(below + left), np.uint64(below + right)
        if in_vectors:
            _blend_rgb(source, line, to, p, q, r, s, a, b, c, d)
            continue
        _blend(source, line, to, p, q, r, s, a, b, c, d)
        if channels == 3:  # without a loop
            _blend(source, line, to + ONE, p + ONE, q + ONE, r + ONE, s + ONE, a, b, c, d)
            _blend(source, line, to + TWO, p + TWO, q + TWO, r + TWO, s + TWO, a, b, c, d)
        else:
            for _ in range(1, channels):
                to, p, q, r, s = to + ONE, p + ONE, q + ONE, r + ONE, s + ONE
                _blend(source, line, to, p, q, r, s, a, b, c, d)


@precise
def _within(v, zero, top):
    v = v if v > zero else zero
    return v if v < top else top


@precise
def _colour(colour, n, channels, top, line):
    zero = line.dtype.type(0)
    if channels == 1:
        for i in range(line.size):
            line[i] = _within(line[i] * colour[n, 0, 0] + colour[n, 0, 1], zero, top)
    else:
        m00, m01, m02, m03 = colour[n, 0, 0], colour[n, 0, 1], colour[n, 0, 2], colour[n, 0, 3]
        m10, m11, m12, m13 = colour[n, 1, 0], colour[n, 1, 1], colour[n, 1, 2], colour[n, 1, 3]
        m20, m21, m22, m23 = colour[n, 2, 0], colour[n, 2, 1], colour[n, 2, 2], colour[n, 2, 3]
        for i in range(0, line.size, 3):
            a, b, c = line[i], line[i + 1], line[i + 2]
            line[i] = _within(a * m00 + b * m01 + c * m02 + m03, zero, top)
            line[i + 1] = _within(a * m10 + b * m11 + c * m12 + m13, zero, top)
            line[i + 2] = _within(a * m20 + b * m21 + c * m22 + m23, zero, top)


@precise
def _taps(colour, n, taps):
    """The matrix as six rows of periods of three numbers: element i of a line of RGB pixels becomes the sum over k < 5 of element i - 2 + k
    times taps[k, i], plus taps[5, i]. Elements of other pixels are taken 0 times."""
    taps[:] = 0
    period = taps.size // 6
    for i in range(period):
        c = i % 3
        for other in range(3):
            taps[(2 - c + other) * period + i] = colour[n, c, other]
        taps[5 * period + i] = colour[n, c, 3]


@precise
def _colour_of_bytes(taps, top, padded):
    """_colour for finite numbers of RGB pixels, in vectors; padded: the line after and before so many numbers as a vector has."""
    vector, period = lanes(padded), taps.size // 6
    size, nothing = padded.size - 2 * vector, zero(load_whole(padded, 0))
    highest = splat_as(top, nothing)
    two_before, before = load_whole(padded, vector - 2), load_whole(padded, vector - 1)
    for i in range(0, size, vector):
        at, k = i + vector, i % period
        v = two_before * load_whole(taps, k) + before * load_whole(taps, k + period)
        v = v + load_whole(padded, at) * load_whole(taps, k + 2 * period)
        v = v + load_whole(padded, at + 1) * load_whole(taps, k + 3 * period)
        v = v + load_whole(padded, at + 2) * load_whole(taps, k + 4 * period)
        v = v + load_whole(taps, k + 5 * period)
        v = where(v > nothing, v, nothing)
        two_before, before = load_whole(padded, at + vector - 2), load_whole(padded, at + vector - 1)  # v replaces some of these
        store(padded, at, size - i, where(highest > v, v, highest))


@precise
def _add_noise(noise, counter, row, first, words, line):
    """first: the number of the line's first element in the image. words: scratch."""
    start = first // 4 * 4
    for at in range(start, first + line.size, BLOCK):
        to, number = at - start, (np.uint64(row) << np.uint64(32)) + np.uint64(at // 4)
        for some in random_words(number, counter[0], counter[1], counter[2]):
            store_words(words, to, some)
            to += LANES
    skip = first - start
    for i in range(line.size):
        line[i] += noise[words[skip + i] >> np.uint32(20)]


@precise
def _apply(part, parts, x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y):
    """Lines start to stop, counted over all images."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    _, height, width, channels = y.shape
    source, target, size = x.reshape(-1), y.reshape(-1), width * channels
    padded, shifts, divisors = np.zeros(size + 2 * lanes(target), y.dtype), np.empty(size, y.dtype), np.empty(size, y.dtype)
    line, taps, tinted = padded[lanes(target) : lanes(target) + size], np.empty(18 * lanes(target), y.dtype), -1
    words = np.empty(size + BLOCK + 4 if noise.size else 0, np.uint32)
    for i in range(size):
        shifts[i], divisors[i] = shift[i % channels], divisor[i % channels]
    for at in range(start, stop):
        n, oh = divmod(at, height)
        h, image = places[0, n, oh], rows[n] * height * size
        if affine.shape[0]:
            _interpolate(source, image, h, places, n, height, channels, affine, border, line)
        else:
            _copy(source, image + h * size if h >= 0 else -1, places, n, height, channels, line)
        if colour.shape[0] and source.itemsize == 1 and channels == 3:
            if n != tinted:
                _taps(colour, n, taps)
                tinted = n
            _colour_of_bytes(taps, y.dtype.type(top), padded)
        elif colour.shape[0]:
            _colour(colour, n, channels, y.dtype.type(top), line)
        if noise.size:
            _add_noise(noise, counter, ids[n], oh * size, words, line)
        for i in range(0, size, lanes(line)):
            left = size - i
            store(target, at * size + i, left, (load(line, i, left) - load(shifts, i, left)) / load(divisors, i, left))
        for k in range(boxes.shape[0]):
            if boxes[k, n, 0] <= oh < boxes[k, n, 1]:
                for i in range(boxes[k, n, 2] * channels, boxes[k, n, 3] * channels):
                    target[at * size + i] = 0


@serial
def apply_serial(x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y):
    work = COPY + INTERPOLATE * (affine.size > 0) + COLOUR * (colour.size > 0) + NOISE * (noise.size > 0)
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * work)
    for k in range(n):
        _apply(k, n, x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y)


@parallel
def apply_parallel(x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y):
    work = COPY + INTERPOLATE * (affine.size > 0) + COLOUR * (colour.size > 0) + NOISE * (noise.size > 0)
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3] * work)
    parallel_for(n, _apply, (n, x, rows, ids, places, affine, border, colour, noise, counter, shift, divisor, top, boxes, y))


# --------------------------------------------------------------------------------------------------------- mix


@precise
def _mix(part, parts, z, share, box, y):
    """Lines start to stop, counted over all images."""
    start, stop = chunks.bounds(part, parts, y.shape[0] * y.shape[1])
    _, height, width, channels = y.shape
    source, target, size = z.reshape(-1), y.reshape(-1), width * channels
    for at in range(start, stop):
        n, h = divmod(at, height)
        own, first = share[n], max(at * size, 0)
        other = 1 - own
        if own != 1:
            for i in range(first, first + size):
                target[i] = own * np.float64(target[i]) + other * np.float64(source[i])
        if box[n, 0] <= h < box[n, 1]:
            for i in range(first + box[n, 2] * channels, first + box[n, 3] * channels):
                target[i] = source[i]


@serial
def mix_serial(z, share, box, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3])
    for k in range(n):
        _mix(k, n, z, share, box, y)


@parallel
def mix_parallel(z, share, box, y):
    n = chunks.count(y.shape[0] * y.shape[1], y.shape[2] * y.shape[3])
    parallel_for(n, _mix, (n, z, share, box, y))
