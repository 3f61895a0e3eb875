"""Losses on CUDA: a group of neighbouring threads per row; loss, hit and gradient in one launch."""

import math

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.activations import like, sigmoid, within
from nbnet.kernels.gpu.compile import formula, from_text, kernel
from nbnet.kernels.gpu.launch import row_maximum, row_sum, rows
from nbnet.kernels.loss import TABLE
from nbnet.kernels.tables import made_from_table

# -------------------------------------------------------------------------------------- softmax_cross_entropy


@kernel
def _softmax_cross_entropy(logits, labels, numbers, count, classes, losses, hits, dlogits, group):
    scale = numbers[0]
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
        total += math.exp(logits[start + c] - largest)
    total = row_sum(total, group, logits)
    share = scale / total
    for c in range(first, last, group):
        gradient = math.exp(logits[start + c] - largest) * share
        dlogits[start + c] = gradient - scale if c == label else gradient
    if first == 0 and last > 0:
        loss = math.log(total) - (logits[start + label] - largest)
        losses[row] = loss
        hits[row] = 1 if winner == label and loss == loss else 0  # a NaN is not equal to itself


def softmax_cross_entropy(logits, labels, scale, losses, hits, dlogits):
    count, classes = logits.shape
    numbers = device.numbers(np.array([scale], logits.dtype))  # with an ignore_index it changes from step to step
    rows(_softmax_cross_entropy, count, classes, logits, labels, numbers, count, classes, losses, hits, dlogits)


# ------------------------------------------------------------------------------------------ soft_cross_entropy


@kernel
def _soft_cross_entropy(logits, shares, weights, numbers, count, classes, losses, hits, dlogits, group):
    scale = numbers[0]
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = classes if row < count else 0  # all threads stay for the reductions
    start = min(row, count - 1) * classes
    largest, winner, peak, best = logits[start], 0, shares[start], 0
    for c in range(first, last, group):
        if logits[start + c] > largest:
            largest, winner = logits[start + c], c
        if shares[start + c] > peak:
            peak, best = shares[start + c], c
    largest, winner = row_maximum(largest, winner, group, logits)
    peak, best = row_maximum(peak, best, group, logits)
    zero = logits.dtype.type(0)
    total, share, products = zero, zero, zero
    for c in range(first, last, group):
        z, s = logits[start + c] - largest, shares[start + c]
        total += math.exp(z)
        share += s
        products += s * z if s > zero else zero
    total, share, products = row_sum(total, group, logits), row_sum(share, group, logits), row_sum(products, group, logits)
    weight = weights[min(row, count - 1)]
    factor = scale * weight
    of_exp = factor * share / total if row < count else zero
    for c in range(first, last, group):
        dlogits[start + c] = math.exp(logits[start + c] - largest) * of_exp - shares[start + c] * factor
    if first == 0 and last > 0:
        loss = weight * (share * math.log(total) - products)
        losses[row] = loss
        hits[row] = 1 if winner == best and peak > zero and loss == loss else 0  # a NaN is not equal to itself


def soft_cross_entropy(logits, shares, weights, scale, losses, hits, dlogits):
    count, classes = logits.shape
    numbers = device.numbers(np.array([scale], logits.dtype))
    rows(_soft_cross_entropy, count, classes, logits, shares, weights, numbers, count, classes, losses, hits, dlogits)


# ------------------------------------------------------------------------------------------ element by element
#
# A form is (y, target, *options) -> L, dL / dy.


@formula
def squared_error_form(y, target):
    d = y - target
    return d * d, d + d


@formula
def absolute_error_form(y, target):
    d, zero, one = y - target, like(y, 0.0), like(y, 1.0)
    return abs(d), one if d > zero else -one if d < zero else d


@formula
def huber_form(y, target, delta):
    d = y - target
    slope = within(d, delta)
    return slope * (d - like(y, 0.5) * slope), slope


@formula
def binary_cross_entropy_form(y, target):
    zero, one = like(y, 0.0), like(y, 1.0)
    value = (zero if y < zero else y) - y * target + math.log1p(math.exp(-abs(y)))
    return value, (one - target) * sigmoid(y) - target * sigmoid(-y)


@formula
def binary_cross_entropy_of_probabilities_form(y, target):
    zero, one, least, floor = like(y, 0.0), like(y, 1.0), like(y, -100.0), like(y, 1e-12)
    rest = one - y
    log_y = least if y <= zero else math.log(y)
    log_rest = least if rest <= zero else math.log1p(-y)
    value = -target * (least if log_y < least else log_y) - (one - target) * (least if log_rest < least else log_rest)
    return value, (y - target) / (floor if y * rest < floor else y * rest)


@formula
def hinge_form(y, target):
    zero, one = like(y, 0.0), like(y, 1.0)
    sign = one if target > zero else -one
    margin = one - sign * y
    return zero if margin < zero else margin, zero if margin <= zero else -sign


@formula
def focal_form(y, target, gamma):
    zero, one = like(y, 0.0), like(y, 1.0)
    sign = one if target > zero else -one
    z = sign * y
    log_e, p = math.log1p(math.exp(-abs(z))), sigmoid(z)
    loss = (zero if z > zero else -z) + log_e  # -log p
    power = math.exp(-gamma * ((zero if z < zero else z) + log_e))  # (1 - p)^gamma
    return power * loss, -sign * (power * (gamma * p * loss + sigmoid(-z)))


TEMPLATE = """
@kernel
def _NAME(y, target, weights, OPTIONS, weight, factor, count, outputs, by_row, by_output, losses, dy, group):
    row, first = cuda.grid(1) // group, cuda.grid(1) % group
    last = outputs if row < count else 0
    total = y.dtype.type(0)
    for i in range(first, last, group):
        value, slope = form(y[row * outputs + i], target[row * outputs + i], OPTIONS)
        w = weights[row * by_row + i * by_output]
        dy[row * outputs + i] = factor * w * slope
        total += w * value
    total = row_sum(total, group, y)
    if first == 0 and last > 0:
        losses[row] = weight * total


def NAME(y, target, weights, OPTIONS, weight, scale, losses, dy):
    (count, outputs), T = y.shape, y.dtype.type
    by_row, by_output = (weights.shape[1] if weights.shape[0] > 1 else 0), int(weights.shape[1] > 1)
    numbers = T(weight), T(weight * scale), count, outputs, by_row, by_output
    rows(_NAME, count, outputs, y, target, weights, TYPED, *numbers, losses, dy)
"""


def _make(name, text, row):
    form = globals()[f"{name}_form"]
    return from_text(name, text, form, {"row_sum": row_sum, "rows": rows, "form": form})


__getattr__, __dir__ = made_from_table(globals(), {"NAME": TEMPLATE}, _make, TABLE.values())
