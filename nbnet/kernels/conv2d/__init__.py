"""Two-dimensional convolution (cross-correlation, as every framework means it).

Letters: N images, H x W input, OH x OW output, I input and O output channels, KH x KW kernel, D = KH*KW*I the length of
a patch, K chunks. All arrays C-contiguous, NHWC, one dtype T (float32 or float64). Pixels outside the image are zero.

    forward(x, weight, bias, stride_h, stride_w, pad_top, pad_left, patches, y)
        y[n,oh,ow,o] = bias_o + sum_{kh,kw,i} x[n, oh*stride_h + kh - pad_top, ow*stride_w + kw - pad_left, i] * weight[kh,kw,i,o]
    backward_data(dy, weight_t, stride_h, stride_w, pad_top, pad_left, patches, dx)
        dx = the transpose of that map, applied to dy; weight_t[o,kh,kw,i] = weight[kh,kw,i,o], packed by dense.transpose
    backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, patches, partials, dweight, dbias)
        dweight[kh,kw,i,o] = sum_{n,oh,ow} x[...] * dy[n,oh,ow,o],   dbias_o = sum_{n,oh,ow} dy[n,oh,ow,o]

x, dx: (N, H, W, I).  y, dy: (N, OH, OW, O).  weight, dweight: (KH, KW, I, O).  weight_t: (O, KH, KW, I).  bias, dbias: (O,).
Scratch: patches (K, TILE, D) T, a tile of gathered patches for each chunk; partials (K, D + 1, O) T, one sum of the
weights' gradient, with the bias's in the last row, for each chunk. K is forward_chunks, data_chunks or weight_chunks.
Everything overwrites (=). Backward needs x and weight from forward.

There is no im2col matrix: a tile of TILE pixels is gathered at a time, stays in the level-1 cache and is multiplied there.
"""

from nbnet.kernels import chunks

TILE = 16  # pixels that share one pass over the weights


def forward_chunks(pixels: int, depth: int, outputs: int) -> int:
    """Chunks of forward: of output pixels (N*OH*OW)."""
    return chunks.count(pixels, depth * outputs)


def data_chunks(images: int, pixels: int, depth: int, outputs: int) -> int:
    """Chunks of backward_data: of whole images, since neighbouring pixels of dy add to the same pixels of dx."""
    return chunks.count(images, pixels // images * depth * outputs)


def weight_chunks(pixels: int, depth: int, outputs: int) -> int:
    """Chunks of backward_weights: at most 16, since each costs a copy of the weights to write and to merge."""
    return min(16, chunks.count(pixels, depth * outputs))
