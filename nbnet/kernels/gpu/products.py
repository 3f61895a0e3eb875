"""Matrix products of convolution and dense on CUDA, whose first factor is not stored, but gathered from the image slice by slice.

A convolution is patches (P, D) times weights (D, O), for P output pixels and D = KH*KW*I. Its transpose is the same product over dy,
with rotated weights; its correlation, the gradient of the weights, is patches, transposed, times dy. A dense layer is a convolution of
images of one pixel. A block computes a tile of the result (see
`tiles`). While it computes with one slice of both factors, it loads the next slice into the other half of its shared memory. If there
are too few tiles to fill a GPU, the sum is cut into parts for several blocks, and another kernel adds them up in order. Statistics of
channels are computed from the tiles while they are in registers, and another kernel merges them in order.
"""

from functools import cache

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import activate
from nbnet.kernels.gpu.compile import SIMULATED, check_count, function, kernel, kernel_of
from nbnet.kernels.gpu.launch import ALIGNMENT, THREADS, add4, divide, load4, narrow, narrow_all, run, store4
from nbnet.kernels.gpu.reductions import merge_moments, moments, shifted
from nbnet.kernels.gpu.tiles import (
    DEPTH,
    RESIDENT,
    Tile,
    activate_tile,
    add_deviations,
    advance_pixel,
    advance_tap,
    matrix4,
    multiply,
    patch4,
    plan,
    write_tile,
    zeros16,
)

SHARES = (4, 2) if SIMULATED else (32, 8)  # elements, and shares of the partial results, per block that adds these up
SHARING = SHARES[0] * SHARES[1]
LARGEST = 2**31 - 2**10  # pixels, or terms of a sum, which are numbered in 32 bits

# --------------------------------------------------------------------------------------------------------- convolve


@cache
def _tile_moments(tile: Tile):
    """The device function that computes the moments of a tile's columns about its first row, from the threads' registers.

    a_tile, b_tile: shared memory, free once all threads arrive; west, east: the bias of a thread's columns. Written to partials
    (blocks, 3, outputs): counts, means minus the bias, sums of squares.
    """
    ROWS, COLUMNS, HIGH, WIDE = tile
    DOWN, LOWER, RIGHT, VECTORS = ROWS // (4 * HIGH), ROWS // 2, COLUMNS // 2, COLUMNS // 4

    @function
    def tile_moments(a_tile, b_tile, row, column, c, west, east, bias, rows, from_column, outputs, partials):
        """row, column: the thread's first ones in the tile; rows: those of the tile inside the matrix."""
        me, zero = cuda.threadIdx.x, a_tile.dtype.type(0)
        none = zero, zero, zero, zero
        cuda.syncthreads()
        if row == 0:
            store4(b_tile, column, add4((c[0][0], c[0][1], c[0][2], c[0][3]), west))
            if WIDE > 1:
                store4(b_tile, column + RIGHT, add4((c[1][0], c[1][1], c[1][2], c[1][3]), east))
        cuda.syncthreads()
        origin = load4(b_tile, column)
        sums = add_deviations((none, none), row, rows, c[0], west, origin)
        if HIGH > 1:
            sums = add_deviations(sums, row + LOWER, rows, c[2], west, origin)
        store4(a_tile, row * VECTORS + column, sums[0])
        store4(a_tile, DOWN * COLUMNS + row * VECTORS + column, sums[1])
        if WIDE > 1:
            column += RIGHT
            origin = load4(b_tile, column)
            sums = add_deviations((none, none), row, rows, c[1], east, origin)
            if HIGH > 1:
                sums = add_deviations(sums, row + LOWER, rows, c[3], east, origin)
            store4(a_tile, row * VECTORS + column, sums[0])
            store4(a_tile, DOWN * COLUMNS + row * VECTORS + column, sums[1])
        cuda.syncthreads()
        if me < COLUMNS and from_column + me < outputs:
            total, squares = zero, zero
            for i in range(DOWN):
                total += a_tile[i * COLUMNS + me]
                squares += a_tile[(DOWN + i) * COLUMNS + me]
            offset = np.float64(b_tile[me]) - np.float64(bias[from_column + me])
            n, mean, m2 = shifted(np.float64(rows), np.float64(total), np.float64(squares), offset)
            at = 3 * cuda.blockIdx.x * outputs + from_column + me
            partials[at], partials[at + outputs], partials[at + 2 * outputs] = n, mean, m2

    return tile_moments


@cache
def _convolution(tile: Tile, IN_VECTORS: bool):  # a constant of the kernel
    """The kernel of y (P, O) = act(bias + patches of x (P, D) times weight (D, O)), for one tile. With several parts of the sum
    (blockIdx.z) y is partial results, (parts, P, O), without the bias and with slope 1; with one part and slope 1 it can
    also compute the moments of y. IN_VECTORS: the channels of x are a multiple of 4."""
    ROWS, COLUMNS, HIGH, WIDE = tile
    ACROSS, THREADS = COLUMNS // (4 * WIDE), tile.threads
    LOWER, RIGHT, VECTORS = ROWS // 2, COLUMNS // 2, COLUMNS // 4
    A_LOADS, B_LOADS = ROWS * DEPTH // (4 * THREADS), -(-COLUMNS * DEPTH // (4 * THREADS))
    A_SIZE, B_SIZE = max(2 * DEPTH * ROWS, 2 * COLUMNS * ROWS // (4 * HIGH)), 2 * DEPTH * COLUMNS
    A_STEP, B_TAKERS = 4 * (THREADS // ROWS), DEPTH * COLUMNS // 4
    tile_moments = _tile_moments(tile)

    @kernel_of(THREADS, RESIDENT // THREADS)
    def convolution(
        x,
        weight,
        bias,
        biased,
        slope,
        shape,
        kernel_size,
        stride,
        pad,
        spread,
        dilation,
        out_shape,
        pixels,
        terms,
        part,
        y,
        moments,
        partials,
    ):
        out_h, out_w, outputs = narrow(out_shape[1]), narrow(out_shape[2]), narrow(out_shape[3])
        (n, in_h), (in_w, channels) = narrow_all((shape[0], shape[1])), narrow_all((shape[2], shape[3]))
        size = n, in_h, in_w, channels
        taps, steps, spread = narrow_all(kernel_size), narrow_all(dilation), narrow_all(spread)
        a_tile = cuda.shared.array(A_SIZE, x.dtype, ALIGNMENT)
        b_tile = cuda.shared.array(B_SIZE, x.dtype, ALIGNMENT)
        me, zero = cuda.threadIdx.x, x.dtype.type(0)
        start, stop = narrow(cuda.blockIdx.z * part), narrow(min(terms, (cuda.blockIdx.z + 1) * part))
        # the pixel whose patch this thread gathers, and the position in the patch
        mine, deep = narrow(me % ROWS), narrow(me // ROWS * 4)
        p = narrow(cuda.blockIdx.x * ROWS + mine)
        image, rest = divide(p, out_h * out_w)
        h, w = divide(rest, out_w)
        image = narrow(image) if p < pixels else n
        h, w = narrow(h * stride[0] - pad[0]), narrow(w * stride[1] - pad[1])
        tap = advance_tap(narrow(0), narrow(0), narrow(0), narrow(start + deep), channels, taps[1])
        from_column = narrow(cuda.blockIdx.y * COLUMNS)
        none = zero, zero, zero, zero
        a0, a1, b0, b1 = none, none, none, none
        row, column = narrow(me // ACROSS * 4), narrow(me % ACROSS * 4)
        c = zeros16(zero), zeros16(zero), zeros16(zero), zeros16(zero)
        half, k = narrow(0), start
        while True:
            if k < stop:
                a0 = patch4(x, image, h, w, tap, size, taps, spread, steps, IN_VECTORS)
                if A_LOADS > 1:
                    other = advance_tap(tap[0], tap[1], tap[2], A_STEP, channels, taps[1])
                    a1 = patch4(x, image, h, w, other, size, taps, spread, steps, IN_VECTORS)
                if me < B_TAKERS:
                    b0 = matrix4(weight, narrow(k + me // VECTORS), stop, narrow(from_column + me % VECTORS * 4), outputs)
                if B_LOADS > 1:
                    at = me + THREADS
                    b1 = matrix4(weight, narrow(k + at // VECTORS), stop, narrow(from_column + at % VECTORS * 4), outputs)
                tap = advance_tap(tap[0], tap[1], tap[2], DEPTH, channels, taps[1])
            if k > start:
                a_at, b_at = narrow((1 - half) * DEPTH * ROWS + row), narrow((1 - half) * DEPTH * COLUMNS + column)
                for d in range(0, DEPTH, 4):
                    c = multiply(c, a_tile, b_tile, a_at + d * ROWS, b_at + d * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 1) * ROWS, b_at + (d + 1) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 2) * ROWS, b_at + (d + 2) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 3) * ROWS, b_at + (d + 3) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
            if k >= stop:
                break
            for i in range(4):
                a_tile[(half * DEPTH + deep + i) * ROWS + mine] = a0[i]
                if A_LOADS > 1:
                    a_tile[(half * DEPTH + deep + A_STEP + i) * ROWS + mine] = a1[i]
            if me < B_TAKERS:
                store4(b_tile, half * DEPTH * COLUMNS + 4 * me, b0)
            if B_LOADS > 1:
                store4(b_tile, half * DEPTH * COLUMNS + 4 * (me + THREADS), b1)
            cuda.syncthreads()
            half = narrow(1 - half)
            k = narrow(k + DEPTH)
        west, east = none, none
        if biased:
            west = matrix4(bias, 0, 1, from_column + column, outputs)
            east = matrix4(bias, 0, 1, from_column + column + RIGHT, outputs)
        top, at = narrow(cuda.blockIdx.x * ROWS), cuda.blockIdx.z * pixels * outputs
        if moments:
            tile_moments(a_tile, b_tile, row, column, c, west, east, bias, min(ROWS, pixels - top), from_column, outputs, partials)
        if slope != 1:
            c = activate_tile(c, west, east, slope, HIGH, WIDE)
            west, east = none, none
        write_tile(y, at, narrow(top + row), narrow(pixels), narrow(from_column + column), outputs, c, west, east, LOWER, RIGHT, HIGH, WIDE)

    return convolution


@function
def _sum_of_parts(partials, parts, size, e):
    """The sum of the partial results of element e, in a thread of row 0 of the block: each row adds a strided share, then those are added,
    in order."""
    shared = cuda.shared.array(SHARING, partials.dtype)
    total = partials.dtype.type(0)
    if e < size:
        for part in range(cuda.threadIdx.y, parts, SHARES[1]):
            total += partials[part * size + e]
    shared[cuda.threadIdx.y * SHARES[0] + cuda.threadIdx.x] = total
    cuda.syncthreads()
    if cuda.threadIdx.y == 0:
        for row in range(1, SHARES[1]):
            total += shared[row * SHARES[0] + cuda.threadIdx.x]
    return total


@kernel
def _add_parts(partials, parts, size, bias, with_bias, slope, outputs, y):
    """y = act(the sum of the partial results + bias)."""
    e = cuda.blockIdx.x * SHARES[0] + cuda.threadIdx.x
    total = _sum_of_parts(partials, parts, size, e)
    if cuda.threadIdx.y == 0 and e < size:
        y[e] = activate(total + bias[e % outputs] if with_bias else total, slope)


def convolve(x, weight, bias, slope, kernel_size, stride, pad, spread, y, mean=None, m2=None, dilation=(1, 1)):
    """y = act(bias (or None) + convolution of x, spread with zeros between its pixels, with weight (D, O)); also y's mean and m2."""
    pixels, outputs = y.size // y.shape[3], y.shape[3]
    terms = kernel_size[0] * kernel_size[1] * x.shape[3]
    check_count(max(pixels, terms, x.size // x.shape[3]), LARGEST)
    cut = plan(pixels, outputs, terms, y.dtype.itemsize)
    parts, with_bias = cut.grid[2], bias is not None
    bias = bias if with_bias else weight
    out = y if parts == 1 else device.pool().empty((parts, pixels, outputs), y.dtype)
    slope = y.dtype.type(slope)
    from_tiles = mean is not None and parts == 1 and slope == 1
    partials = device.pool().empty((cut.grid[0] if from_tiles else 0, 3, outputs), np.float64)
    geometry = (x.shape, kernel_size, stride, pad, spread, dilation, y.shape)
    epilogue = (with_bias, slope) if parts == 1 else (False, slope.dtype.type(1))
    args = (x, weight, bias, *epilogue, *geometry, pixels, terms, cut.part, out, from_tiles, partials)
    run(_convolution(cut.tile, x.shape[3] % 4 == 0), cut.grid, cut.tile.threads, *args)
    if parts > 1:
        run(_add_parts, -(-y.size // SHARES[0]), SHARES, out, parts, y.size, bias, with_bias, slope, outputs, y)
    if from_tiles:
        merge_moments(partials, bias, mean, m2)
    elif mean is not None:
        moments(y.reshape(pixels, outputs), None, None, mean, m2)


@kernel
def _rotate(weight, taps, inputs, outputs, rotated):
    """rotated[(kh, kw, o), i] = weight[KH-1-kh, KW-1-kw, i, o]"""
    e = cuda.grid(1)
    i, o, tap = e % inputs, e // inputs % outputs, e // inputs // outputs
    if tap < taps:
        rotated[e] = weight[((taps - 1 - tap) * inputs + i) * outputs + o]


def convolve_transposed(dy, weight, kernel_size, stride, pad, dilation, dx):
    """dx = the transpose of the convolution with weight (KH, KW, I, O), applied to dy."""
    taps, inputs, outputs = kernel_size[0] * kernel_size[1], dx.shape[3], dy.shape[3]
    rotated = device.pool().empty((taps * outputs, inputs), weight.dtype)
    run(_rotate, -(-rotated.size // THREADS), THREADS, weight, taps, inputs, outputs, rotated)
    pad = (kernel_size[0] - 1) * dilation[0] - pad[0], (kernel_size[1] - 1) * dilation[1] - pad[1]
    convolve(dy, rotated, None, 1.0, kernel_size, (1, 1), pad, stride, dx, dilation=dilation)


# -------------------------------------------------------------------------------------------------------- correlate


@cache
def _correlation(tile: Tile, IN_VECTORS: bool):  # a constant of the kernel
    """The kernel of patches of x (P, D), transposed, times dy (P, O), for one tile. Partial results are (parts, D + 1, O), with
    the sum of dy in the last row. IN_VECTORS: the channels of x are a multiple of 4."""
    ROWS, COLUMNS, HIGH, WIDE = tile
    ACROSS, THREADS = COLUMNS // (4 * WIDE), tile.threads
    LOWER, RIGHT, VECTORS = ROWS // 2, COLUMNS // 2, COLUMNS // 4
    A_LOADS, B_LOADS = ROWS * DEPTH // (4 * THREADS), -(-COLUMNS * DEPTH // (4 * THREADS))
    A_SIZE, B_SIZE = 2 * DEPTH * ROWS, 2 * DEPTH * COLUMNS
    A_VECTORS, B_TAKERS = ROWS // 4, DEPTH * COLUMNS // 4
    A_STEP = THREADS // A_VECTORS

    @kernel_of(THREADS, RESIDENT // THREADS)
    def correlation(x, dy, shape, kernel_size, stride, pad, dilation, out_h, out_w, pixels, terms, outputs, part, partials):
        (n, in_h), (in_w, channels) = narrow_all((shape[0], shape[1])), narrow_all((shape[2], shape[3]))
        size = n, in_h, in_w, channels
        taps, steps, strides, pads = narrow_all(kernel_size), narrow_all(dilation), narrow_all(stride), narrow_all(pad)
        out_h, out_w, outputs = narrow(out_h), narrow(out_w), narrow(outputs)
        apart = narrow(1), narrow(1)
        a_tile = cuda.shared.array(A_SIZE, x.dtype, ALIGNMENT)
        b_tile = cuda.shared.array(B_SIZE, x.dtype, ALIGNMENT)
        me, zero = cuda.threadIdx.x, x.dtype.type(0)
        start, stop = narrow(cuda.blockIdx.z * part), narrow(min(pixels, (cuda.blockIdx.z + 1) * part))
        # the position in the patches that this thread gathers, and its pixels
        deep = narrow(me // A_VECTORS)
        first = narrow(cuda.blockIdx.x * ROWS + me % A_VECTORS * 4)
        tap = advance_tap(narrow(0), narrow(0), narrow(0), first, channels, taps[1])
        image, rest = divide(start, out_h * out_w)
        ow, oh, image = advance_pixel(narrow(0), narrow(0), narrow(image), narrow(rest + deep), out_w, out_h)
        from_column = narrow(cuda.blockIdx.y * COLUMNS)
        none = zero, zero, zero, zero
        a0, a1, b0, b1 = none, none, none, none
        row, column = narrow(me // ACROSS * 4), narrow(me % ACROSS * 4)
        c = zeros16(zero), zeros16(zero), zeros16(zero), zeros16(zero)
        bias = zero
        half, k = narrow(0), start
        while True:
            if k < stop:
                h, w = narrow(oh * strides[0] - pads[0]), narrow(ow * strides[1] - pads[1])
                a0 = patch4(x, image, h, w, tap, size, taps, apart, steps, IN_VECTORS)
                if A_LOADS > 1:
                    w, h, of = advance_pixel(ow, oh, image, A_STEP, out_w, out_h)
                    h, w = narrow(h * strides[0] - pads[0]), narrow(w * strides[1] - pads[1])
                    a1 = patch4(x, of, h, w, tap, size, taps, apart, steps, IN_VECTORS)
                if me < B_TAKERS:
                    b0 = matrix4(dy, narrow(k + me // VECTORS), stop, narrow(from_column + me % VECTORS * 4), outputs)
                if B_LOADS > 1:
                    at = me + THREADS
                    b1 = matrix4(dy, narrow(k + at // VECTORS), stop, narrow(from_column + at % VECTORS * 4), outputs)
                ow, oh, image = advance_pixel(ow, oh, image, DEPTH, out_w, out_h)
            if k > start:
                a_at, b_at = narrow((1 - half) * DEPTH * ROWS + row), narrow((1 - half) * DEPTH * COLUMNS + column)
                for d in range(0, DEPTH, 4):
                    c = multiply(c, a_tile, b_tile, a_at + d * ROWS, b_at + d * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 1) * ROWS, b_at + (d + 1) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 2) * ROWS, b_at + (d + 2) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                    c = multiply(c, a_tile, b_tile, a_at + (d + 3) * ROWS, b_at + (d + 3) * COLUMNS, LOWER, RIGHT, HIGH, WIDE)
                if cuda.blockIdx.x == 0 and me < COLUMNS:
                    slice_sum = zero  # shorter sums lose fewer digits
                    for d in range(DEPTH):
                        slice_sum += b_tile[((1 - half) * DEPTH + d) * COLUMNS + me]
                    bias += slice_sum
            if k >= stop:
                break
            store4(a_tile, (half * DEPTH + deep) * ROWS + me % A_VECTORS * 4, a0)
            if A_LOADS > 1:
                store4(a_tile, (half * DEPTH + deep + A_STEP) * ROWS + me % A_VECTORS * 4, a1)
            if me < B_TAKERS:
                store4(b_tile, half * DEPTH * COLUMNS + 4 * me, b0)
            if B_LOADS > 1:
                store4(b_tile, half * DEPTH * COLUMNS + 4 * (me + THREADS), b1)
            cuda.syncthreads()
            half = narrow(1 - half)
            k = narrow(k + DEPTH)
        at = cuda.blockIdx.z * (terms + 1) * outputs
        if cuda.blockIdx.x == 0 and me < COLUMNS and from_column + me < outputs:
            partials[at + terms * outputs + from_column + me] = bias
        row, column = narrow(row + cuda.blockIdx.x * ROWS), narrow(column + from_column)
        write_tile(partials, at, row, narrow(terms), column, outputs, c, none, none, LOWER, RIGHT, HIGH, WIDE)

    return correlation


@kernel
def _add_gradients(partials, parts, size, outputs, with_bias, dweight, dbias):
    """The sums of the partial results; size: of the weights and biases together."""
    e = cuda.blockIdx.x * SHARES[0] + cuda.threadIdx.x
    total = _sum_of_parts(partials, parts, size, e)
    if cuda.threadIdx.y == 0 and e < size:
        if e < size - outputs:
            dweight[e] = total
        elif with_bias:
            dbias[e - (size - outputs)] = total


def correlate(x, dy, kernel_size, stride, pad, dilation, dweight, dbias):
    """dweight = patches of x, transposed, times dy; dbias = the sums of dy, unless its size is 0."""
    outputs = dy.shape[3]
    pixels, terms = dy.size // outputs, kernel_size[0] * kernel_size[1] * x.shape[3]
    check_count(max(pixels, terms, x.size // x.shape[3]), LARGEST)
    cut = plan(terms, outputs, pixels, dy.dtype.itemsize)
    parts = cut.grid[2]
    partials = device.pool().empty((parts, terms + 1, outputs), dweight.dtype)
    geometry = (x.shape, kernel_size, stride, pad, dilation)
    sizes = (dy.shape[1], dy.shape[2], pixels, terms, outputs, cut.part)
    run(_correlation(cut.tile, x.shape[3] % 4 == 0), cut.grid, cut.tile.threads, x, dy, *geometry, *sizes, partials)
    size = (terms + 1) * outputs
    run(_add_gradients, -(-size // SHARES[0]), SHARES, partials, parts, size, outputs, dbias.size > 0, dweight, dbias)
