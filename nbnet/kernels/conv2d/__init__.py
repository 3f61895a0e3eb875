"""Two-dimensional convolution (cross-correlation, as every framework means it).

Letters: N images, H x W input, OH x OW output, I input and O output channels, G groups of J = I / G input channels, KH x KW kernel,
D = KH*KW*J, K chunks. All arrays C-contiguous, NHWC, one dtype T (float32 or float64). Pixels outside the image are zero. Group g has the
input channels g*J to (g+1)*J and the output channels g*O/G to (g+1)*O/G.

    forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, packed, ready, strips, y, partials,
            mean, m2)
        z[n,oh,ow,o] = bias_o + sum_{kh,kw,j} x[n, oh*stride_h + kh*dilation_h - pad_top, ow*stride_w + kw*dilation_w - pad_left, g*J + j]
            * weight[kh,kw,j,o], where g is the group of o
        y = act(z) = z where z > 0, else slope * z: slope 1 is no activation, 0 is ReLU (0 for minus infinity too), others above 0
        are leaky ReLU. The gradient through it needs only y, and is computed before the backward kernels: nbnet.kernels.activation.
        mean, m2: y's mean and summed squared deviations over n, oh, ow, for a batch norm that follows; computed from each chunk
        of y while it is in the cache.
    backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, transposed, packed, strips, dx)
        dx = the transpose of that map, applied to dy: a convolution of dy, spread by the stride, with rotated weights
    backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, strips, partials, dweight, dbias)
        dweight[kh,kw,j,o] = sum_{n,oh,ow} x[...] * dy[n,oh,ow,o],   dbias_o = sum_{n,oh,ow} dy[n,oh,ow,o]

x, dx: (N, H, W, I).  y, dy: (N, OH, OW, O).  weight, dweight: (KH, KW, J, O).  bias, dbias: (O,); dbias of shape (0,) is not computed.
mean, m2: (O,) float64, not computed if partials has the shape (0, 3, O).
Scratch, with sizes from `scratch`: strips (T, S) T, a workspace for each of the T threads, (T, 1, S) for lines.py, or (T, 1, 1, S) for
nested_lines.py, so that Numba compiles that code only where it is used; packed (`planes`, P) T, transformed weights, which stay as they are
if ready is True: an earlier call made them; transposed (KH*KW*(O/G + 1), I) T, the rotated weights and then zeros; partials of forward
(K, 3, O) float64; partials of backward_weights (K, D + 1, O) T, the sum of the weights' gradient for each chunk, with the bias's in the
last row. Everything overwrites (=). Backward needs x and weight from forward.

There is no im2col: a strip of rows is copied with its padding, and tiles read their patches from it. A patch is KH runs of KW*I numbers,
so the patches of neighbouring pixels overlap in memory and are read from the level-1 cache; with groups or a dilation it is KH*KW runs of
J numbers. 3 x 3 convolutions with stride 1, without a dilation, over enough channels use Winograd's minimal filtering (winograd.py),
with 4 times fewer products. Kernels of height 1 use it along lines (lines.py), with up to 1.8 times fewer; with 7 to 9 taps twice, nested
(nested_lines.py), with up to 3.2 times fewer. backward_data with few input channels, or with a stride, adds up the products of each pixel
of dy with all weights (col2im.py). A 1 x 1 convolution with stride 1 reads the image where it is, forward and in backward_data.

Minimal filtering mixes the numbers of a tile. If a result is not finite, the tile is computed again without it (direct.py): so NaN and
infinity reach exactly the results that depend on them, and only results that are too large overflow. Padding counts as zeros, and 0 times
NaN is NaN: a weight that is not finite may spoil results that meet it in the padding alone, in dx with some algorithms only. Rounding
errors are relative to the largest input of the tile, where those of the direct sum are relative to the inputs of each result. Sums of
many products are added up in blocks: see `summed_together`.
"""

import math
from functools import cache
from typing import NamedTuple

from numba.extending import register_jitable

from nbnet.kernels import chunks
from nbnet.kernels.cpu.gemm import MACS, TERMS
from nbnet.kernels.cpu.target import WIDTH

STRIP = 16384  # target size of a strip in numbers: it stays in the level-2 cache, with a block of weights
FEW = 8  # channels of dx up to which backward_data uses col2im
LEAST = 16  # input and output channels from which Winograd's transforms pay
EDGE = 4  # outputs of a Winograd tile in each direction; 2 at the edge if no more are left
PLANES = 36  # the most products per tile
LINE_TILE, LINE_PLANES = 3, 5  # outputs of a tile of a line, and its products for each block of as many taps
# Tiles of a line that are transformed together, also a multiple of the rows of a register tile. With the weights of 64 channels, their
# planes share the level-2 cache.
LINE_TILES = 60
# Outputs of a nested tile of a line, its products, and its inputs; and the fewest taps, channels and pixels with which nesting pays.
NESTED_TILE, NESTED_PLANES, SPAN = LINE_TILE * LINE_TILE, LINE_PLANES * LINE_PLANES, LINE_TILE * LINE_PLANES + 2
NESTED_TAPS, NESTED_LEAST, NESTED_PIXELS = 7, 32, 512
SHORT = 24  # outputs of a line from which minimal filtering pays
# Tiles that are transformed together, and the numbers of one of their planes. With AVX-512 the planes share the level-2 cache with the
# transformed weights of 64 channels. Without it, products take twice as long and that cache is usually smaller, so it is better to read the
# weights less often.
FEWEST_TILES, MOST_TILES, TOGETHER = 16 if WIDTH == 64 else 48, 48, 2048
GROUP = 96  # tiles that are computed before their statistics
TILES_A_THREAD = 16  # at least this many, since each thread reads all weights
PAD = 16  # numbers between planes; without them the 36 streams of stores would map to few sets of the level-1 cache
IN_CACHES = 1 << 20  # bytes of images below which nothing is prefetched
LANES = 16  # the most numbers in a vector register
PIXEL = 32  # the cost of a pixel besides its products, in elementary operations of `chunks`
MOST_PARTIALS = 16  # the most chunks of backward_weights, since each writes and merges a copy of the weights,
PIXELS = 1024  # and the pixels of dy that justify one


@register_jitable
def extent(kernel, dilation):
    """The pixels from the first to the last one of a kernel along one axis."""
    return (kernel - 1) * dilation + 1


@register_jitable
def strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs):
    """The output rows of one strip, and the numbers in one padded input row."""
    row = ((out_w - 1) * stride_w + extent(kernel_w, dilation_w)) * inputs
    rows = (STRIP // row - extent(kernel_h, dilation_h)) // stride_h + 1
    return max(1, min(out_h, rows)), row


@register_jitable
def line_blocks(taps):
    """The blocks of taps of a kernel of height 1: B."""
    return (taps + LINE_TILE - 1) // LINE_TILE


@register_jitable
def planes(images, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs, outputs, groups):
    """The planes of minimal filtering, or 0 where it is not used: with fewer channels its transforms cost more than the products it saves,
    and along lines it does not save enough of them with 1, 2 or 4 taps. Nesting transforms more weights, which few pixels do not repay."""
    dense = stride_h == 1 and stride_w == 1 and dilation_h == 1 and dilation_w == 1
    if not dense or inputs // groups < LEAST or outputs // groups < LEAST or (groups > 1 and outputs // groups % LANES > 0):
        return 0
    if groups == 1 and kernel_h == 1 and LINE_TILE * kernel_w >= 7 * line_blocks(kernel_w) and out_w >= SHORT:
        many = min(inputs, outputs) >= NESTED_LEAST and images * out_h * out_w >= NESTED_PIXELS
        return NESTED_PLANES if NESTED_TAPS <= kernel_w <= NESTED_TILE and many else LINE_PLANES
    return PLANES if kernel_h == 3 and kernel_w == 3 else 0


@register_jitable
def tiles_together(inputs, outputs):
    """The tiles of images that are transformed together: a multiple of 8, as many rows as most register tiles have."""
    return max(FEWEST_TILES, min(MOST_TILES, (TOGETHER // (inputs + outputs) + 4) // 8 * 8))


@register_jitable
def plan(images, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs, groups, filters):
    """Rows of output that are computed together, and the number of chunks, for a convolution from `inputs` to `outputs` channels
    with `filters` planes."""
    rows, _ = strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, inputs)
    rows = EDGE if filters == PLANES else 1 if filters > 0 else rows
    return rows, _chunks(images, out_h, rows, out_w, outputs * kernel_h * kernel_w * inputs // groups)


@register_jitable
def _chunks(images, out_h, rows, out_w, products):
    """The number of chunks of images in units of `rows` rows of pixels, each a number of products."""
    return chunks.count(images * (-(-out_h // rows)), rows * out_w * (PIXEL + products // MACS))


@register_jitable
def uses_col2im(inputs, stride_h, stride_w):
    """Whether backward_data to `inputs` channels of a group uses col2im.py."""
    return inputs <= FEW or stride_h * stride_w > 1


@register_jitable
def col2im_chunks(images, out_h, out_w, outputs, depth):
    """The number of chunks, of whole images, with col2im. depth: D."""
    return _chunks(images, out_h, out_h, out_w, outputs * depth)


class Scratch(NamedTuple):
    """Sizes of the scratch of one kernel."""

    chunks: int  # K: forward has partials for each, backward_weights fewer (`partial_sums`), backward_data with col2im none
    strip: tuple[int, ...]  # S; 1, S; or 1, 1, S
    packed: tuple[int, int]


@cache
def scratch(
    images: int,
    out_h: int,
    out_w: int,
    outputs: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    dilation_h: int,
    dilation_w: int,
    inputs: int,
    groups: int,
) -> Scratch:
    """For a convolution from `inputs` to `outputs` channels and for its backward_weights."""
    steps = stride_h, stride_w, dilation_h, dilation_w
    filters = planes(images, out_h, out_w, kernel_h, kernel_w, *steps, inputs, outputs, groups)
    rows, count = plan(images, out_h, out_w, outputs, kernel_h, kernel_w, *steps, inputs, groups, filters)
    _, row = strip_rows(out_h, out_w, kernel_h, kernel_w, *steps, inputs)
    pixels = images * out_h * out_w
    weights = kernel_h * kernel_w * inputs // groups * outputs
    sums = weights if summed_together(pixels, partial_sums(count, pixels)) > 0 else 0
    direct = ((rows - 1) * stride_h + extent(kernel_h, dilation_h)) * row + LANES + sums
    if filters == 0:
        return Scratch(count, (direct,), (0, 1))
    blocks, tiles = (line_blocks(kernel_w), LINE_TILES) if filters == LINE_PLANES else (1, tiles_together(inputs, outputs))
    products = blocks * inputs // groups * outputs
    numbers = LANES + (tiles + blocks - 1) * inputs + tiles * outputs + 2 * PAD + products  # for each of the planes
    strip = max(direct, filters * numbers + 2 * LANES + SPAN * inputs + outputs)
    kind = {PLANES: (), LINE_PLANES: (1,), NESTED_PLANES: (1, 1)}[filters]
    return Scratch(count, (*kind, strip), (filters, products + PAD))


@register_jitable
def summed_together(pixels, parts):
    """How many products backward_weights adds up one after the other before it adds their sum to the others', or 0 for all. The square
    root balances both, where there are many."""
    part = pixels // parts
    return max(TERMS, int(math.sqrt(part))) if part > TERMS else 0


def partial_sums(chunk_count: int, pixels: int) -> int:
    """The number of partial sums of backward_weights for this many pixels of dy, given the number of chunks of forward."""
    return min(chunk_count, MOST_PARTIALS, max(2, chunks.shared(pixels // PIXELS)))


def backward_data_scratch(
    images: int,
    height: int,
    width: int,
    inputs: int,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    dilation_h: int,
    dilation_w: int,
    outputs: int,
    groups: int,
) -> Scratch:
    """For backward_data to images (height, width, inputs)."""
    if uses_col2im(inputs // groups, stride_h, stride_w):
        return Scratch(0, (max(STRIP, kernel_h * kernel_w * inputs),), (0, 1))
    return scratch(images, height, width, inputs, kernel_h, kernel_w, 1, 1, dilation_h, dilation_w, outputs, groups)
