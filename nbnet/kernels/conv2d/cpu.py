"""Convolution on the CPU: gather a tile of patches, multiply it in cache."""

from numba import prange

from nbnet.kernels import chunks
from nbnet.kernels.compile import body, parallel, serial
from nbnet.kernels.matmul import add_matmul, add_matmul_at, merge_partials


@body
def _gather(x, pixel, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patch):
    """Copy the patch under output pixel `pixel` (a flat index over N, OH, OW) into patch (KH*KW*I,), zeros outside the image."""
    image, rest = divmod(pixel, out_h * out_w)
    top = rest // out_w * stride_h - pad_top
    left = rest % out_w * stride_w - pad_left
    inputs = x.shape[3]
    first, last = max(0, -left), min(kernel_w, x.shape[2] - left)
    at = 0
    for h in range(top, top + kernel_h):
        if h < 0 or h >= x.shape[1] or first >= last:
            for i in range(at, at + kernel_w * inputs):
                patch[i] = 0
        else:
            row = x[image, h].reshape(-1)
            source = left * inputs
            for i in range(first * inputs):
                patch[at + i] = 0
            for i in range(first * inputs, last * inputs):
                patch[at + i] = row[source + i]
            for i in range(last * inputs, kernel_w * inputs):
                patch[at + i] = 0
        at += kernel_w * inputs


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
            _gather(x, p, y.shape[1], y.shape[2], kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patches[p - m])
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
def _scatter(patch, pixel, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dx):
    """Add patch (KH*KW*I,) to the pixels of dx that `_gather` reads for this output pixel."""
    image, rest = divmod(pixel, out_h * out_w)
    top = rest // out_w * stride_h - pad_top
    left = rest % out_w * stride_w - pad_left
    inputs = dx.shape[3]
    first, last = max(0, -left), min(kernel_w, dx.shape[2] - left)
    for kh in range(kernel_h):
        h = top + kh
        if 0 <= h < dx.shape[1]:
            row = dx[image, h].reshape(-1)
            target = left * inputs
            at = kh * kernel_w * inputs
            for i in range(first * inputs, last * inputs):
                row[target + i] += patch[at + i]


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
            _scatter(patches[p - m], p, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dx)


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
            _gather(x, p, dy.shape[1], dy.shape[2], kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, patches[p - m])
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
