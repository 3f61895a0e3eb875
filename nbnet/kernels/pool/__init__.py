"""Maximum and average pooling on NHWC images.

Letters: N images, H x W input, OH x OW output, C channels. x, dx: (N, H, W, C); y, dy: (N, OH, OW, C); C-contiguous, one
dtype T (float32 or float64).

Output pixel (oh, ow) covers the window of rows oh*stride_h - pad_top to oh*stride_h - pad_top + size_h (exclusive),
columns alike, clipped to the image. So padding has no value: it never wins a maximum, and a mean counts it as 0 or not at all. The
caller makes sure that every window contains at least one real pixel.

    max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y)
        y = max of the window; NaN where the window contains a NaN
    max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx)
        each dy goes to the winner of its window: the first NaN, else the first maximum, in row-major order
    avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, y)
        y = sum of the window / its number of pixels, summed in float64
    avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, end_h, end_w, dx)
        each pixel receives dy / number of pixels from every window that contains it

end_h and end_w are 0 where only real pixels count (as in Keras and TensorFlow). Where padding counts too (as in PyTorch), they are H and W
plus the padding at the bottom and right: the number of pixels is that of the window before it is clipped to the image, but it ends there.

Everything overwrites (=): dx is 0 outside all windows, and overlapping windows add. max_backward recomputes the winners
from x, so forward stores no indices. Global average pooling is avg with the window of the whole image.
"""
