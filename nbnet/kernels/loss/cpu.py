"""Losses on the CPU: loss and gradient of a row in one pass."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import exp_of_row, largest_of_row, scale_row
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import fma, log
from nbnet.kernels.cpu.vector import load, splat, store, sum_of_lanes, widen, zero

EXP = 16  # the cost of an exp in elementary operations, for the choice of chunks

# -------------------------------------------------------------------------------------- softmax_cross_entropy


@body
def _first_is(x, at, index, value):
    """Whether the first number from `at` that equals value is at `index`."""
    if x[at + index] != value:
        return False
    i = 0
    while x[at + i] != value:
        i += 1
    return i == index


@body
def _softmax_cross_entropy(part, parts, logits, labels, scale, losses, hits, dlogits):
    start, stop = chunks.bounds(part, parts, logits.shape[0])
    classes, source, gradient = logits.shape[1], logits.reshape(-1), dlogits.reshape(-1)
    of_labels = np.empty(lanes(losses))
    for block in range(start, stop, of_labels.size):
        end = min(block + of_labels.size, stop)
        for m in range(block, end):
            at, label = m * classes, labels[m]
            largest = largest_of_row(source, at, classes)
            of_labels[m - block] = np.float64(source[at + label] - largest)
            hits[m] = _first_is(source, at, label, largest)
            losses[m] = exp_of_row(source, at, classes, largest, gradient)
            scale_row(gradient, at, classes, logits.dtype.type(scale / losses[m]))
            gradient[at + label] -= logits.dtype.type(scale)
        count = end - block
        store(losses, block, count, log(load(losses, block, count)) - load(of_labels, 0, count))
        for m in range(block, end):
            hits[m] = hits[m] and losses[m] == losses[m]  # a NaN is not equal to itself


@serial
def softmax_cross_entropy_serial(logits, labels, scale, losses, hits, dlogits):
    n = chunks.count(logits.shape[0], EXP * logits.shape[1])
    for k in range(n):
        _softmax_cross_entropy(k, n, logits, labels, scale, losses, hits, dlogits)


@parallel
def softmax_cross_entropy_parallel(logits, labels, scale, losses, hits, dlogits):
    n = chunks.count(logits.shape[0], EXP * logits.shape[1])
    parallel_for(n, _softmax_cross_entropy, (n, logits, labels, scale, losses, hits, dlogits))


# ---------------------------------------------------------------------------------------------- squared_error


@precise
def _squared_error(part, parts, y, target, weight, scale, losses, dy):
    """Written with vectors to fix the order of sums: LLVM's own vector code runs only if no arrays overlap, and sums in another order."""
    start, stop = chunks.bounds(part, parts, y.shape[0])
    size, factor = y.shape[1], splat(y.dtype.type(2 * weight * scale))
    predicted, expected, gradient = y.reshape(-1), target.reshape(-1), dy.reshape(-1)
    for m in range(start, stop):
        total = widen(zero(factor))
        for i in range(0, size, lanes(y)):
            at, count = m * size + i, size - i
            d = load(predicted, at, count) - load(expected, at, count)
            store(gradient, at, count, factor * d)
            total = fma(widen(d), widen(d), total)
        losses[m] = weight * sum_of_lanes(total)


@serial
def squared_error_serial(y, target, weight, scale, losses, dy):
    n = chunks.count(y.shape[0], y.shape[1])
    for k in range(n):
        _squared_error(k, n, y, target, weight, scale, losses, dy)


@parallel
def squared_error_parallel(y, target, weight, scale, losses, dy):
    n = chunks.count(y.shape[0], y.shape[1])
    parallel_for(n, _squared_error, (n, y, target, weight, scale, losses, dy))
