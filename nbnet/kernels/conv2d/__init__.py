"""Two-dimensional convolution (cross-correlation, as every framework means it).

Letters: N images, H x W input, OH x OW output, I input and O output channels, KH x KW kernel, D = KH*KW*I, K chunks.
All arrays C-contiguous, NHWC, one dtype T (float32 or float64). Pixels outside the image are zero.

    forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, packed, strips, y, partials, mean, m2)
        z[n,oh,ow,o] = bias_o + sum_{kh,kw,i} x[n, oh*stride_h + kh - pad_top, ow*stride_w + kw - pad_left, i] * weight[kh,kw,i,o]
        y = act(z) = z where z > 0, else slope * z: slope 1 is no activation, 0 is ReLU (0 for minus infinity too), others above 0
        are leaky ReLU. The gradient through it needs y alone, and comes before the backward kernels: nbnet.kernels.activation has it.
        mean, m2: y's mean and summed squared deviations over n, oh, ow, for a batch norm that follows; taken from each chunk of y
        while it is in the cache.
    backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, turned, packed, strips, dx)
        dx = the transpose of that map, applied to dy: a convolution of dy, spread by the stride, with the weights turned around
    backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, strips, partials, dweight, dbias)
        dweight[kh,kw,i,o] = sum_{n,oh,ow} x[...] * dy[n,oh,ow,o],   dbias_o = sum_{n,oh,ow} dy[n,oh,ow,o]

x, dx: (N, H, W, I).  y, dy: (N, OH, OW, O).  weight, dweight: (KH, KW, I, O).  bias, dbias: (O,); dbias of shape (0,) is not wanted.
mean, m2: (O,) float64, left alone where partials of shape (0, 3, O) says that none are wanted.
Scratch, of the sizes that `scratch` gives: strips (T, S) T, a workspace for each of the T threads that may run; packed (36, P) T,
transformed weights, or (0, P); turned (KH*KW*(O + 1), I) T, the weights turned around and then zeros; partials of forward
(K, 3, O) float64; partials of backward_weights (K, D + 1, O) T, a sum of the weights' gradient for each chunk, with the bias's in
the last row. Everything overwrites (=). Backward needs x and weight from forward.

There is no im2col: a strip of rows is copied with its padding, and tiles walk over it. A patch is KH runs of KW*I numbers there,
so the patches of neighbouring pixels overlap in memory and are read from the level-1 cache. Convolutions of 3 x 3 with stride 1
over enough channels run by minimal filtering instead (winograd.py): 4 times fewer products. backward_data towards few channels, or
with a stride, adds up the products of each pixel of dy with all weights (scatter.py).
"""

from functools import cache
from typing import NamedTuple

from numba.extending import register_jitable

from nbnet.kernels import chunks
from nbnet.kernels.cpu.gemm import MACS
from nbnet.kernels.cpu.register_tiles import WIDTH

STRIP = 16384  # numbers that a strip aims at: with a block of weights it stays in the level-2 cache
FEW = 8  # channels of dx up to which backward_data multiplies each pixel by all weights
LEAST = 16  # channels on both sides that make minimal filtering worth its transforms
EDGE = 4  # outputs of one of its tiles, each way; 2 where no more are left
PLANES = 36  # products for a tile, at most
# Tiles that it transforms together. With AVX-512 their planes share the level-2 cache with the transformed weights; where products take
# twice as long and that cache is mostly smaller, it is better to read the weights less often.
TILES = 16 if WIDTH == 64 else 48
GROUP = 96  # and tiles that it computes at a time, before their statistics are taken
TILES_A_THREAD = 16  # at least, since each thread reads all weights
PAD = 16  # numbers between planes; without them the 36 streams of stores would fall on few sets of the level-1 cache
IN_CACHES = 1 << 20  # bytes of images: where there are fewer, nothing is asked for ahead
LANES = 16  # numbers in a vector register, at most
PIXEL = 32  # elementary operations of `chunks` that a pixel costs beside its products
MOST_PARTIALS = 16  # chunks of backward_weights at most, since each costs a copy of the weights to write and to merge,
PIXELS = 1024  # and pixels of dy that make one worth it


@register_jitable
def strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, inputs):
    """Output rows of one strip, and numbers in one padded row of input."""
    row = ((out_w - 1) * stride_w + kernel_w) * inputs
    rows = (STRIP // row - kernel_h) // stride_h + 1
    return max(1, min(out_h, rows)), row


@register_jitable
def minimal(kernel_h, kernel_w, stride_h, stride_w, inputs, outputs):
    """Whether a convolution runs by minimal filtering: with fewer channels its transforms cost more than the products it saves."""
    return kernel_h == 3 and kernel_w == 3 and stride_h == 1 and stride_w == 1 and inputs >= LEAST and outputs >= LEAST


@register_jitable
def plan(images, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, inputs, filtered):
    """Rows of output that are computed together, and the number of chunks, for a convolution from `inputs` to `outputs` channels."""
    rows = EDGE if filtered else strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, inputs)[0]
    return rows, _chunks(images, out_h, rows, out_w, outputs * kernel_h * kernel_w * inputs)


@register_jitable
def _chunks(images, out_h, rows, out_w, products):
    """The number of chunks of images in units of `rows` rows of pixels, each a number of products."""
    return chunks.count(images * (-(-out_h // rows)), rows * out_w * (PIXEL + products // MACS))


@register_jitable
def scatters(inputs, stride_h, stride_w):
    """Whether backward_data towards `inputs` channels adds up the products of each pixel of dy (scatter.py)."""
    return inputs <= FEW or stride_h * stride_w > 1


@register_jitable
def scatter_chunks(images, out_h, out_w, outputs, kernel_h, kernel_w, inputs):
    """Its number of chunks, of whole images."""
    return _chunks(images, out_h, out_h, out_w, outputs * kernel_h * kernel_w * inputs)


class Scratch(NamedTuple):
    """Sizes of the scratch of one kernel."""

    chunks: int  # K: forward has partials for each, backward_weights fewer (`partial_sums`), a scattering backward_data none
    strip: int  # S
    packed: tuple[int, int]


@cache
def scratch(
    images: int, out_h: int, out_w: int, outputs: int, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, inputs: int
) -> Scratch:
    """For a convolution from `inputs` to `outputs` channels and for its backward_weights."""
    filtered = minimal(kernel_h, kernel_w, stride_h, stride_w, inputs, outputs)
    _, count = plan(images, out_h, out_w, outputs, kernel_h, kernel_w, stride_h, stride_w, inputs, filtered)
    if filtered:
        numbers = LANES + TILES * (inputs + outputs) + 2 * PAD + inputs * outputs  # for each of the planes
        return Scratch(count, PLANES * numbers + LANES, (PLANES, inputs * outputs + PAD))
    rows, row = strip_rows(out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, inputs)
    return Scratch(count, ((rows - 1) * stride_h + kernel_h) * row + LANES, (0, 1))


def partial_sums(chunk_count: int, pixels: int) -> int:
    """How many partial sums backward_weights makes of so many pixels of dy: of the chunks that forward would have, 1, 2 or more."""
    return min(chunk_count, MOST_PARTIALS, max(2, chunks.shared(pixels // PIXELS)))


def backward_data_scratch(
    images: int, height: int, width: int, inputs: int, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, outputs: int
) -> Scratch:
    """For backward_data towards images (height, width, inputs)."""
    if scatters(inputs, stride_h, stride_w):
        return Scratch(0, max(STRIP, kernel_h * kernel_w * inputs), (0, 1))
    return scratch(images, height, width, inputs, kernel_h, kernel_w, 1, 1, outputs)
