"""Maximum and average pooling on NHWC images.

Letters: N images, H x W input, OH x OW output, C channels. x, dx: (N, H, W, C); y, dy: (N, OH, OW, C); C-contiguous, one
dtype T (float32 or float64).

Output pixel (oh, ow) covers the window of rows oh*stride_h - pad_top to oh*stride_h - pad_top + size_h (exclusive),
columns alike, clipped to the image. So padding has no value: it never wins a maximum and is not counted in a
mean (as in Keras and TensorFlow). The caller makes sure that every window contains at least one real pixel.

    max_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y)
        y = max of the window; NaN where the window contains a NaN
    max_backward(dy, x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx)
        each dy goes to the winner of its window: the first NaN, else the first maximum, in row-major order
    avg_forward(x, size_h, size_w, stride_h, stride_w, pad_top, pad_left, y)
        y = sum of the window / its number of pixels, summed in float64
    avg_backward(dy, size_h, size_w, stride_h, stride_w, pad_top, pad_left, dx)
        each pixel receives dy / number of pixels from every window that contains it

Everything overwrites (=): dx is 0 outside all windows, and overlapping windows add. max_backward recomputes the winners
from x, so forward stores no indices. Global average pooling is avg with the window of the whole image.
"""
