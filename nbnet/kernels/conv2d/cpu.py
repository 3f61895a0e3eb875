"""Convolution on the CPU: gather a tile of patches, multiply it in cache."""

from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.matmul import add_matmul, add_matmul_at, merge_partials


@body
def _gather(x, pixel, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patches, p):
    """Copy what output pixel `pixel` (a flat index over N, OH, OW) meets into patches[p] (KH*KW*I,), zeros outside the image.

    One flat index for x and plain loops: a slice in here would cost reference counts for every pixel.
    """
    image, rest = divmod(pixel, out_h * out_w)
    top = rest // out_w * stride_h - pad_top
    left = rest % out_w * stride_w - pad_left
    height, width, inputs = x.shape[1], x.shape[2], x.shape[3]
    flat = x.reshape(-1)
    row = kernel_w * inputs
    first = max(0, -left) * inputs
    last = max(first, min(kernel_w, width - left) * inputs)
    for kh in range(kernel_h):
        at = kh * row
        h = top + kh
        if h < 0 or h >= height:
            for i in range(row):
                patches[p, at + i] = 0
        else:
            source = ((image * height + h) * width + left) * inputs
            for i in range(first):
                patches[p, at + i] = 0
            for i in range(first, last):
                patches[p, at + i] = flat[source + i]
            for i in range(last, row):
                patches[p, at + i] = 0


# ---------------------------------------------------------------------------------------------------- forward


@body
def _forward(x, weight, bias, stride_h, stride_w, pad_top, pad_left, start, stop, patches, y):
    kernel_h, kernel_w, _, outputs = weight.shape
    tile = patches.shape[0]
    flat_weight = weight.reshape(-1, outputs)
    flat_y = y.reshape(-1, outputs)
    for m in range(start, stop, tile):
        end = min(m + tile, stop)
        for p in range(m, end):
            _gather(x, p, y.shape[1], y.shape[2], kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patches, p - m)
            for o in range(outputs):
                flat_y[p, o] = bias[o]
        add_matmul(patches[: end - m], flat_weight, flat_y[m:end])


@serial
def forward_serial(x, weight, bias, stride_h, stride_w, pad_top, pad_left, patches, y):
    n = patches.shape[0]
    for k in range(n):
        start, stop = chunks.bounds(k, n, y.shape[0] * y.shape[1] * y.shape[2])
        _forward(x, weight, bias, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], y)


@parallel
def forward_parallel(x, weight, bias, stride_h, stride_w, pad_top, pad_left, patches, y):
    n = patches.shape[0]
    for k in prange(n):
        start, stop = chunks.bounds(k, n, y.shape[0] * y.shape[1] * y.shape[2])
        _forward(x, weight, bias, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], y)


# ---------------------------------------------------------------------------------------------- backward_data


@body
def _scatter(patches, p, pixel, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dx):
    """Add patches[p] (KH*KW*I,) to the pixels of dx that `_gather` reads for this output pixel."""
    image, rest = divmod(pixel, out_h * out_w)
    top = rest // out_w * stride_h - pad_top
    left = rest % out_w * stride_w - pad_left
    height, width, inputs = dx.shape[1], dx.shape[2], dx.shape[3]
    flat = dx.reshape(-1)
    first = max(0, -left) * inputs
    last = max(first, min(kernel_w, width - left) * inputs)
    for kh in range(max(0, -top), min(kernel_h, height - top)):
        target = ((image * height + top + kh) * width + left) * inputs
        at = kh * kernel_w * inputs
        for i in range(first, last):
            flat[target + i] += patches[p, at + i]


@body
def _backward_data(dy, weight_t, stride_h, stride_w, pad_top, pad_left, start, stop, patches, dx):
    outputs, kernel_h, kernel_w, _ = weight_t.shape
    out_h, out_w = dy.shape[1], dy.shape[2]
    tile = patches.shape[0]
    flat_weight = weight_t.reshape(outputs, -1)
    flat_dy = dy.reshape(-1, outputs)
    dx[start:stop] = 0
    first, last = start * out_h * out_w, stop * out_h * out_w
    for m in range(first, last, tile):
        end = min(m + tile, last)
        patches[: end - m] = 0
        add_matmul(flat_dy[m:end], flat_weight, patches[: end - m])
        for p in range(m, end):
            _scatter(patches, p - m, p, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dx)


@serial
def backward_data_serial(dy, weight_t, stride_h, stride_w, pad_top, pad_left, patches, dx):
    n = patches.shape[0]
    for k in range(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _backward_data(dy, weight_t, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], dx)


@parallel
def backward_data_parallel(dy, weight_t, stride_h, stride_w, pad_top, pad_left, patches, dx):
    n = patches.shape[0]
    for k in prange(n):
        start, stop = chunks.bounds(k, n, dy.shape[0])
        _backward_data(dy, weight_t, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], dx)


# ------------------------------------------------------------------------------------------- backward_weights


@body
def _backward_weights(x, dy, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, start, stop, patches, partial):
    outputs = dy.shape[3]
    tile, depth = patches.shape
    flat_dy = dy.reshape(-1, outputs)
    partial[:] = 0
    for m in range(start, stop, tile):
        end = min(m + tile, stop)
        for p in range(m, end):
            _gather(x, p, dy.shape[1], dy.shape[2], kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patches, p - m)
            for o in range(outputs):
                partial[depth, o] += flat_dy[p, o]
        add_matmul_at(patches[: end - m], flat_dy[m:end], partial[:depth])


@body
def _merge(partials, dweight, dbias):
    depth = partials.shape[1] - 1
    merge_partials(partials[:, :depth], dweight.reshape(depth, -1))
    merge_partials(partials[:, depth:], dbias.reshape(1, -1))


@serial
def backward_weights_serial(x, dy, stride_h, stride_w, pad_top, pad_left, patches, partials, dweight, dbias):
    n = partials.shape[0]
    kernel_h, kernel_w = dweight.shape[:2]
    for k in range(n):
        start, stop = chunks.bounds(k, n, dy.shape[0] * dy.shape[1] * dy.shape[2])
        _backward_weights(x, dy, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], partials[k])
    _merge(partials, dweight, dbias)


@parallel
def backward_weights_parallel(x, dy, stride_h, stride_w, pad_top, pad_left, patches, partials, dweight, dbias):
    n = partials.shape[0]
    kernel_h, kernel_w = dweight.shape[:2]
    for k in prange(n):
        start, stop = chunks.bounds(k, n, dy.shape[0] * dy.shape[1] * dy.shape[2])
        _backward_weights(x, dy, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, start, stop, patches[k], partials[k])
    _merge(partials, dweight, dbias)
