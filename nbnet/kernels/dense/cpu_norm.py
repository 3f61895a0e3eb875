"""The gradient of a dense layer's weights through the batch norm behind it, on the CPU."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.gemm import TERMS, gemm
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.prefetch import prefetch
from nbnet.kernels.cpu.register_tiles import lanes

ROWS = 64  # of dy that are multiplied while the next ones are prefetched; a part of TERMS


@body
def _sums(part, x, dy, products, moments):
    """For a chunk: products[part] (I, O) = x.T @ dy; moments[part] (I, I + 1) = second moments and sums of x about its first row."""
    first, last = chunks.bounds(part, products.shape[0], x.shape[0])
    inputs, outputs = x.shape[1], dy.shape[1]
    moments = moments[part]
    moments[:] = 0
    for m in range(first, last):
        for i in range(inputs):
            from_first = np.float64(x[m, i]) - np.float64(x[0, i])
            moments[i, inputs] += from_first
            for j in range(i + 1):
                moments[i, j] += from_first * (np.float64(x[m, j]) - np.float64(x[0, j]))
    a, b, total, zeros = x.reshape(-1), dy.reshape(-1), products[part].reshape(-1), inputs * outputs
    sums = np.zeros(zeros + outputs, x.dtype)  # the last row stays 0
    total[:] = 0
    for row in range(first, last, ROWS):
        rows = min(ROWS, last - row)
        for at in range((row + rows) * outputs, min(row + rows + ROWS, last) * outputs, lanes(b)):
            prefetch(b, at)
        start, start_r = (zeros, 0) if (row - first) % TERMS == 0 else (0, outputs)
        gemm(inputs, a, row * inputs, 0, 1, inputs, b, row * outputs, 0, outputs, 1, rows, sums, start, start_r, sums, 0, outputs, outputs)
        if (row + ROWS - first) % TERMS == 0 or row + rows == last:
            for i in range(zeros):
                total[i] += np.float64(sums[i])


@precise
def _through_norm(x, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    """dweight and dbias from the sums of all chunks, which are added up in the first chunk's."""
    rows, inputs, outputs = x.shape[0], x.shape[1], weight.shape[1]
    for part in range(1, moments.shape[0]):
        moments[0] += moments[part]
    total = moments[0, :, inputs]
    for i in range(inputs):
        for o in range(outputs):
            product, spread = 0.0, 0.0
            for part in range(products.shape[0]):
                product += products[part, i, o]
            for j in range(inputs):
                spread += (moments[0, max(i, j), min(i, j)] - total[i] * total[j] / rows) * weight[j, o]
            sum_x = total[i] + rows * np.float64(x[0, i])
            dweight[i, o] = a[o] * product + b[o] * sum_x + c[o] * (spread + sum_x * (mean[o] - center[o]))
    for o in range(outputs):
        dbias[o] = a[o] * sum_dy[o] + rows * (b[o] + c[o] * (mean[o] - center[o]))


@serial
def backward_weights_norm_serial(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    for k in range(products.shape[0]):
        _sums(k, x, dy, products, moments)
    _through_norm(x, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias)


@parallel
def backward_weights_norm_parallel(x, dy, y, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias):
    parallel_for(products.shape[0], _sums, (x, dy, products, moments))
    _through_norm(x, weight, mean, center, sum_dy, a, b, c, products, moments, dweight, dbias)
