"""Resampling of NHWC images: each output pixel is a sum of a few input pixels with weights, given by tables of each axis.

Letters: N images, H x W input, OH x OW output, C channels; A taps per output row, B per output column. x: (N, H, W, C) and y: (N, OH,
OW, C), C-contiguous, one dtype T (float32 or float64). row_index: (OH, A) and column_index: (OW, B), int64. row_weight and
column_weight: the same shapes, float64.

    gather(x, row_index, row_weight, column_index, column_weight, y)
        y[n, oh, ow, c] = sum over a, b of row_weight[oh, a] * column_weight[ow, b] * x[n, row_index[oh, a], column_index[ow, b], c]
        summed in float64, in the order of a and then b; overwrites (=)

An index of -1 is no tap, and all after it in its row of the table are -1 too. An output without taps is 0, whatever x holds. An output
with one tap of weight 1 is the same bits as its input, also a NaN.

The map is linear, and its transpose has the same form: backward is `gather` of dy by the transposed tables (H, A') and (W, B'). Padding,
cropping, nearest and bilinear upsampling, and adaptive average pooling are tables (nbnet.functional.resample).
"""
