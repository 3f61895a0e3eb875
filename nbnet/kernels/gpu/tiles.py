"""Matrix products on CUDA: the parts of a tile, shared by convolution and dense layers.

A block of threads computes a tile of ROWS x COLUMNS of the result, in slices of DEPTH terms of the sum. A thread holds up to 8 x 8 results
in registers, as up to four parts of 4 x 4. Its rows are 4 in the upper half of the tile and 4 in the lower half; its columns likewise. So
neighbouring threads read neighbouring numbers of shared memory, 128 bits at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from nbnet.kernels.gpu.activations import activate
from nbnet.kernels.gpu.compile import SIMULATED, formula
from nbnet.kernels.gpu.launch import MULTIPROCESSORS, add4, divide, load4, multiply_add4, narrow, store4, subtract4

DEPTH = 8
RESIDENT = 384  # resident threads per multiprocessor: 64 results per thread take 168 registers in float32, and spill with fewer


class Tile(NamedTuple):
    """rows x columns of the result; a thread has 4 * high x 4 * wide of it."""

    rows: int
    columns: int
    high: int
    wide: int

    @property
    def threads(self) -> int:
        return self.rows // (4 * self.high) * (self.columns // (4 * self.wide))


# By the bytes of a number, and by columns; the first of each width is for few rows, such as the weights of a first layer. Every tile has at
# least as many threads as rows and as columns. In float64 a number takes two registers, so a thread has half as many results.
LOW = Tile(32, 16, 1, 1), Tile(32, 32, 1, 1), Tile(32, 64, 1, 2)
TILES = {
    4: (LOW[0], Tile(128, 16, 1, 1), LOW[1], Tile(128, 32, 2, 1), LOW[2], Tile(64, 64, 2, 2), Tile(128, 64, 2, 2)),
    8: (LOW[0], Tile(128, 16, 1, 1), LOW[1], Tile(128, 32, 1, 1), LOW[2], Tile(64, 64, 2, 1), Tile(128, 64, 2, 1)),
}
if SIMULATED:
    LOW = Tile(16, 16, 1, 1), Tile(16, 32, 1, 1), Tile(32, 64, 1, 2)
    TILES = dict.fromkeys(TILES, (LOW[0], LOW[1], Tile(32, 32, 2, 1), LOW[2], Tile(64, 64, 2, 2)))


class Plan(NamedTuple):
    """How a product is cut: the tile, the grid of tiles, and the number of parts of the sum that are computed separately."""

    tile: Tile
    grid: tuple[int, int, int]
    part: int  # terms of the sum in each part but the last


def plan(rows: int, columns: int, terms: int, itemsize: int) -> Plan:
    """The plan of a product (rows, terms) x (terms, columns) of numbers of `itemsize` bytes, from the shape alone."""
    width = next((tile.columns for tile in TILES[itemsize] if tile.columns >= columns), 0)
    low, *high = [tile for tile in TILES[itemsize] if tile.columns == (width or 64)]
    high = high[: None if width else 1] or [low]
    enough = -(-rows // high[-1].rows) * -(-columns // low.columns) >= MULTIPROCESSORS
    tile = low if rows <= low.rows else high[-1] if enough else high[0]
    grid = -(-rows // tile.rows), -(-columns // tile.columns)
    parts = max(1, 2 * MULTIPROCESSORS // (grid[0] * grid[1]))
    slices = -(-terms // DEPTH)
    each = max(-(-slices // parts), min(slices, 1 if SIMULATED else 8))
    return Plan(tile, (*grid, -(-slices // each)), each * DEPTH)


# --------------------------------------------------------------------------------------------------- on the device


@formula
def zeros16(zero):
    return zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero


@formula
def outer(c, a, b):
    """c + the products of four a and four b, row by row."""
    return (
        c[0] + a[0] * b[0],
        c[1] + a[0] * b[1],
        c[2] + a[0] * b[2],
        c[3] + a[0] * b[3],
        c[4] + a[1] * b[0],
        c[5] + a[1] * b[1],
        c[6] + a[1] * b[2],
        c[7] + a[1] * b[3],
        c[8] + a[2] * b[0],
        c[9] + a[2] * b[1],
        c[10] + a[2] * b[2],
        c[11] + a[2] * b[3],
        c[12] + a[3] * b[0],
        c[13] + a[3] * b[1],
        c[14] + a[3] * b[2],
        c[15] + a[3] * b[3],
    )


@formula
def multiply(c, a_tile, b_tile, a_at, b_at, lower, right, high, wide):
    """Add the products of one column of a_tile and one row of b_tile to the four parts c of a thread.

    a_at, b_at: the thread's first numbers; lower, right: the offsets of its other half.
    """
    c00, c01, c10, c11 = c
    top, west = load4(a_tile, a_at), load4(b_tile, b_at)
    c00 = outer(c00, top, west)
    if wide > 1:
        east = load4(b_tile, b_at + right)
        c01 = outer(c01, top, east)
    if high > 1:
        bottom = load4(a_tile, a_at + lower)
        c10 = outer(c10, bottom, west)
        if wide > 1:
            c11 = outer(c11, bottom, east)
    return c00, c01, c10, c11


@formula
def activate_tile(c, west, east, slope, high, wide):
    """The activation of a thread's parts plus a bias for the columns of its left and right half."""
    c00, c01, c10, c11 = c
    c00 = _activate16(c00, west, slope)
    if wide > 1:
        c01 = _activate16(c01, east, slope)
    if high > 1:
        c10 = _activate16(c10, west, slope)
        if wide > 1:
            c11 = _activate16(c11, east, slope)
    return c00, c01, c10, c11


@formula
def write_tile(matrix, at, row, rows, column, columns, c, west, east, lower, right, high, wide):
    """Write a thread's parts plus a bias for the columns of its left and right half."""
    write16(matrix, at, row, rows, column, columns, c[0], west)
    if wide > 1:
        write16(matrix, at, row, rows, column + right, columns, c[1], east)
    if high > 1:
        write16(matrix, at, row + lower, rows, column, columns, c[2], west)
        if wide > 1:
            write16(matrix, at, row + lower, rows, column + right, columns, c[3], east)


@formula
def matrix4(matrix, row, rows, column, columns):
    """Four neighbours in a row of a matrix, 0 outside."""
    zero = matrix.dtype.type(0)
    at = row * columns + column
    if row >= rows or column >= columns:
        return zero, zero, zero, zero
    if columns % 4 == 0:
        return load4(matrix, at)
    return (
        matrix[at],
        matrix[at + 1] if column + 1 < columns else zero,
        matrix[at + 2] if column + 2 < columns else zero,
        matrix[at + 3] if column + 3 < columns else zero,
    )


@formula
def advance_tap(channel, kw, kh, by, channels, kernel_w):
    """Channel, column and row of the kernel, advanced by `by` numbers."""
    channel = narrow(channel + by)
    while channel >= channels:
        channel = narrow(channel - channels)
        kw = narrow(kw + 1)
        if kw == kernel_w:
            kw = narrow(0)
            kh = narrow(kh + 1)
    return channel, kw, kh


@formula
def advance_pixel(ow, oh, image, by, out_w, out_h):
    """The pixel, advanced by `by` pixels."""
    ow = narrow(ow + by)
    while ow >= out_w:
        ow = narrow(ow - out_w)
        oh = narrow(oh + 1)
        if oh == out_h:
            oh = narrow(0)
            image = narrow(image + 1)
    return ow, oh, image


@formula
def _pixel_at(image, h, w, shape, spread):
    """The number of the pixel x[image, h / spread, w / spread]; -1 outside and between the pixels of a spread image."""
    if h < 0 or w < 0:
        return narrow(-1)
    if spread[0] != 1 or spread[1] != 1:
        (row, h_rest), (column, w_rest) = divide(h, spread[0]), divide(w, spread[1])
        if h_rest != 0 or w_rest != 0:
            return narrow(-1)
        h, w = narrow(row), narrow(column)
    if h >= shape[1] or w >= shape[2] or image >= shape[0]:
        return narrow(-1)
    return narrow(narrow(narrow(narrow(image * shape[1]) + h) * shape[2]) + w)


@formula
def _tap_of(x, image, h, w, tap, shape, kernel_size, spread, dilation):
    """The number of a patch at one tap, 0 outside."""
    channel, kw, kh = tap
    at = _pixel_at(image, narrow(h + kh * dilation[0]), narrow(w + kw * dilation[1]), shape, spread) if kh < kernel_size[0] else narrow(-1)
    return x[at * shape[3] + channel] if at >= 0 else x.dtype.type(0)


@formula
def patch4(x, image, h, w, tap, shape, kernel_size, spread, dilation, vectors):
    """Four neighbours in the patch of x (N, H, W, I) whose first pixel is (h, w), from `tap` (channel, column, row).

    vectors: whether I is a multiple of 4, so that the four are of one pixel.
    """
    if vectors:
        channel, kw, kh = tap
        at = narrow(-1)
        if kh < kernel_size[0]:
            at = _pixel_at(image, narrow(h + kh * dilation[0]), narrow(w + kw * dilation[1]), shape, spread)
        zero = x.dtype.type(0)
        return load4(x, at * shape[3] + channel) if at >= 0 else (zero, zero, zero, zero)
    a = _tap_of(x, image, h, w, tap, shape, kernel_size, spread, dilation)
    tap = advance_tap(tap[0], tap[1], tap[2], 1, shape[3], kernel_size[1])
    b = _tap_of(x, image, h, w, tap, shape, kernel_size, spread, dilation)
    tap = advance_tap(tap[0], tap[1], tap[2], 1, shape[3], kernel_size[1])
    c = _tap_of(x, image, h, w, tap, shape, kernel_size, spread, dilation)
    tap = advance_tap(tap[0], tap[1], tap[2], 1, shape[3], kernel_size[1])
    d = _tap_of(x, image, h, w, tap, shape, kernel_size, spread, dilation)
    return a, b, c, d


@formula
def write4(matrix, at, row, rows, column, columns, values):
    """Write four neighbours in a row of the matrix (rows, columns) that starts at element `at`, if they are inside."""
    if row < rows:
        at += row * columns + column
        if columns % 4 == 0 and column < columns:
            store4(matrix, at, values)
        else:
            if column < columns:
                matrix[at] = values[0]
            if column + 1 < columns:
                matrix[at + 1] = values[1]
            if column + 2 < columns:
                matrix[at + 2] = values[2]
            if column + 3 < columns:
                matrix[at + 3] = values[3]


@formula
def write16(matrix, at, row, rows, column, columns, c, bias):
    """Write a part of 4 x 4 plus a bias per column."""
    write4(matrix, at, row, rows, column, columns, add4((c[0], c[1], c[2], c[3]), bias))
    write4(matrix, at, row + 1, rows, column, columns, add4((c[4], c[5], c[6], c[7]), bias))
    write4(matrix, at, row + 2, rows, column, columns, add4((c[8], c[9], c[10], c[11]), bias))
    write4(matrix, at, row + 3, rows, column, columns, add4((c[12], c[13], c[14], c[15]), bias))


@formula
def _activate16(c, bias, slope):
    """The activation of a part of 4 x 4 plus a bias per column."""
    return (
        activate(c[0] + bias[0], slope),
        activate(c[1] + bias[1], slope),
        activate(c[2] + bias[2], slope),
        activate(c[3] + bias[3], slope),
        activate(c[4] + bias[0], slope),
        activate(c[5] + bias[1], slope),
        activate(c[6] + bias[2], slope),
        activate(c[7] + bias[3], slope),
        activate(c[8] + bias[0], slope),
        activate(c[9] + bias[1], slope),
        activate(c[10] + bias[2], slope),
        activate(c[11] + bias[3], slope),
        activate(c[12] + bias[0], slope),
        activate(c[13] + bias[1], slope),
        activate(c[14] + bias[2], slope),
        activate(c[15] + bias[3], slope),
    )


@formula
def add_deviations(sums, row, rows, c, bias, origin):
    """Add the rows of a part of 4 x 4 plus a bias, minus the columns' origin, to the sums of columns and of their squares."""
    sums = _add_row(sums, row, rows, (c[0], c[1], c[2], c[3]), bias, origin)
    sums = _add_row(sums, row + 1, rows, (c[4], c[5], c[6], c[7]), bias, origin)
    sums = _add_row(sums, row + 2, rows, (c[8], c[9], c[10], c[11]), bias, origin)
    return _add_row(sums, row + 3, rows, (c[12], c[13], c[14], c[15]), bias, origin)


@formula
def _add_row(sums, row, rows, values, bias, origin):
    if row >= rows:
        return sums
    d = subtract4(add4(values, bias), origin)
    return add4(sums[0], d), multiply_add4(d, d, sums[1])
