"""Losses on CUDA: a group of neighbouring threads per row; loss, hit and gradient in one launch."""

import math

from numba import cuda

from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import row_maximum, row_sum, rows

# -------------------------------------------------------------------------------------- softmax_cross_entropy


@kernel
def _softmax_cross_entropy(logits, labels, scale, count, classes, losses, hits, dlogits, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0  # all threads stay for the reductions
    start = min(row, count - 1) * classes
    label = labels[min(row, count - 1)]
    largest, winner = logits[start], 0
    for c in range(first, last, group):
        if logits[start + c] > largest:
            largest, winner = logits[start + c], c
    largest, winner = row_maximum(largest, winner, group, logits)
    total = logits.dtype.type(0)
    for c in range(first, last, group):
        e = math.exp(logits[start + c] - largest)
        dlogits[start + c] = e
        total += e
    total = row_sum(total, group, logits)
    share = scale / total
    for c in range(first, last, group):
        gradient = dlogits[start + c] * share
        dlogits[start + c] = gradient - scale if c == label else gradient
    if first == 0 and last > 0:
        loss = math.log(total) - (logits[start + label] - largest)
        losses[row] = loss
        hits[row] = 1 if winner == label and loss == loss else 0  # a NaN is not equal to itself


def softmax_cross_entropy(logits, labels, scale, losses, hits, dlogits):
    count, classes = logits.shape
    scale = logits.dtype.type(scale)
    rows(_softmax_cross_entropy, count, classes, logits, labels, scale, count, classes, losses, hits, dlogits)


# ---------------------------------------------------------------------------------------------- squared_error


@kernel
def _squared_error(y, target, weight, factor, count, outputs, losses, dy, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = outputs if row < count else 0
    total = y.dtype.type(0)
    for i in range(row * outputs + first, row * outputs + last, group):
        d = y[i] - target[i]
        dy[i] = factor * d
        total += d * d
    total = row_sum(total, group, y)
    if first == 0 and last > 0:
        losses[row] = weight * total


def squared_error(y, target, weight, scale, losses, dy):
    count, outputs = y.shape
    T = y.dtype.type
    rows(_squared_error, count, outputs, y, target, T(weight), T(2 * weight * scale), count, outputs, losses, dy)
