"""Dropout in NumPy: the definition. See the contract in `nbnet.kernels.dropout`."""

import numpy as np

from nbnet.kernels import philox

BLOCK = 1 << 20  # elements at a time: the words of a large array would double its memory


def apply(x, counter, threshold, scale, shift, dropped, y):
    seed, stream, step, *before = map(int, counter)
    skipped = 4 * before[0] if before else 0
    for start in range(0, len(x), BLOCK):
        block = slice(start, min(start + BLOCK, len(x)))
        keep = philox.words(skipped + block.start, skipped + block.stop, seed, stream, step) >= np.uint64(threshold)
        y[block] = np.where(keep, x[block] * x.dtype.type(scale) + x.dtype.type(shift), x.dtype.type(dropped))


def relu_backward(dy, y, scale, dx):
    dx[:] = np.where(y <= 0, 0, dy * dy.dtype.type(scale))
