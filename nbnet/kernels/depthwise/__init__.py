"""Depthwise convolution: each channel of an image by a kernel of its own (a convolution with as many groups as channels).

Letters: N images, H x W input, OH x OW output, C channels, KH x KW kernel, K chunks. All arrays C-contiguous, NHWC, one dtype T (float32 or
float64). Pixels outside the image are zero.

    forward(x, weight, bias, slope, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, y, partials, mean, m2)
        z[n,oh,ow,c] = bias_c + sum_{kh,kw} x[n, oh*stride_h + kh*dilation_h - pad_top, ow*stride_w + kw*dilation_w - pad_left, c]
            * weight[kh,kw,c]
        y = act(z) = z where z > 0, else slope * z; mean, m2: y's mean and summed squared deviations (both as in nbnet.kernels.conv2d)
    backward_data(dy, weight, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, dx)
        dx = the transpose of that map, applied to dy
    backward_weights(x, dy, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, partials, dweight, dbias)
        dweight[kh,kw,c] = sum_{n,oh,ow} x[...] * dy[n,oh,ow,c],   dbias_c = sum_{n,oh,ow} dy[n,oh,ow,c]

x, dx: (N, H, W, C).  y, dy: (N, OH, OW, C).  weight, dweight: (KH, KW, C).  bias, dbias: (C,); dbias of shape (0,) is not computed.
mean, m2: (C,) float64, not computed if partials has the shape (0, 3, C).
Scratch: partials of forward (K, 3, C) float64; of backward_weights (K, KH*KW + 1, C) float64. K of forward: see `chunk_count`; of
backward_weights: fewer (nbnet.kernels.conv2d.partial_sums). Everything overwrites (=). Padding is never read, so NaN and infinity reach
exactly the results whose windows contain them.

There is nothing to share between channels, so no matrix product: a vector holds neighbouring channels, and a few neighbouring pixels share
each vector of weights. Products are added up in T over one row of pixels, then in float64.
"""

from numba.extending import register_jitable

from nbnet.kernels import chunks


@register_jitable
def chunk_count(images, height, width, channels, taps):
    """The number of chunks of images (height, width, channels), in units of rows of pixels, with `taps` products for each number."""
    return chunks.count(images * height, width * channels * (1 + taps // 4))
