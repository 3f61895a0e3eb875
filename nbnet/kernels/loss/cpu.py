"""Losses on the CPU: loss and gradient of a row in one pass."""

import numpy as np

from nbnet.kernels import chunks
from nbnet.kernels.cpu.compile import body, precise, serial
from nbnet.kernels.cpu.drivers import drivers
from nbnet.kernels.cpu.elementary import at_least, both_sigmoids, log1p, within
from nbnet.kernels.cpu.parallel_for import parallel, parallel_for
from nbnet.kernels.cpu.reductions import exp_of_row, largest_of_row, scale_row, weights_of
from nbnet.kernels.cpu.register_tiles import lanes
from nbnet.kernels.cpu.vecmath import absolute, exp, fma, log
from nbnet.kernels.cpu.vector import load, load_as, splat, splat_as, store, sum_of_lanes, where, widen, zero
from nbnet.kernels.loss import TABLE
from nbnet.kernels.tables import made_from_table

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


# ------------------------------------------------------------------------------------------ soft_cross_entropy


@body
def _soft_cross_entropy(part, parts, logits, shares, weights, scale, losses, hits, dlogits):
    start, stop = chunks.bounds(part, parts, logits.shape[0])
    classes, source, wanted, gradient = logits.shape[1], logits.reshape(-1), shares.reshape(-1), dlogits.reshape(-1)
    for m in range(start, stop):
        at = m * classes
        largest, peak, best = largest_of_row(source, at, classes), largest_of_row(wanted, at, classes), 0
        while wanted[at + best] != peak and best < classes - 1:
            best += 1
        hit = peak > 0 and _first_is(source, at, best, largest)
        exps = exp_of_row(source, at, classes, largest, gradient)
        share, products = widen(zero(load(wanted, at, 0))), widen(zero(load(wanted, at, 0)))
        for c in range(0, classes, lanes(logits)):
            s, z = load(wanted, at + c, classes - c), load(source, at + c, classes - c)
            z = where(s > zero(s), z - splat_as(largest, z), zero(z))
            share = share + widen(s)
            products = fma(widen(s), widen(z), products)
        total = sum_of_lanes(share)
        losses[m] = np.float64(weights[m]) * (total * np.log(exps) - sum_of_lanes(products))
        hits[m] = hit and losses[m] == losses[m]  # a NaN is not equal to itself
        factor = scale * np.float64(weights[m])
        of_exp, of_share = logits.dtype.type(factor * total / exps), logits.dtype.type(factor)
        for c in range(0, classes, lanes(logits)):
            e, s = load(gradient, at + c, classes - c), load(wanted, at + c, classes - c)
            store(gradient, at + c, classes - c, e * splat_as(of_exp, e) - s * splat_as(of_share, s))


@serial
def soft_cross_entropy_serial(logits, shares, weights, scale, losses, hits, dlogits):
    n = chunks.count(logits.shape[0], EXP * logits.shape[1])
    for k in range(n):
        _soft_cross_entropy(k, n, logits, shares, weights, scale, losses, hits, dlogits)


@parallel
def soft_cross_entropy_parallel(logits, shares, weights, scale, losses, hits, dlogits):
    n = chunks.count(logits.shape[0], EXP * logits.shape[1])
    parallel_for(n, _soft_cross_entropy, (n, logits, shares, weights, scale, losses, hits, dlogits))


# ------------------------------------------------------------------------------------------ element by element
#
# A form is (y, target, *options) -> L, in float64, and dL / dy.


@precise
def squared_error(y, target):
    d = y - target
    return widen(d) * widen(d), d + d


@precise
def absolute_error(y, target):
    d = y - target
    one = splat_as(1.0, d)
    return widen(absolute(d)), where(d > zero(d), one, where(zero(d) > d, zero(d) - one, d))


@precise
def huber(y, target, delta):
    d = y - target
    slope = within(d, splat_as(delta, d))
    wide = widen(slope)
    return wide * (widen(d) - splat_as(0.5, wide) * wide), slope


@precise
def binary_cross_entropy(y, target):
    e = exp(zero(y) - absolute(y))
    s, other = both_sigmoids(y, e)
    value = widen(at_least(y, zero(y))) - widen(y) * widen(target) + widen(log1p(e))
    return value, (splat_as(1.0, y) - target) * s - target * other


@precise
def binary_cross_entropy_of_probabilities(y, target):
    one, least = splat_as(1.0, y), splat_as(-100.0, y)
    rest = one - y
    log_y = where(zero(y) >= y, least, at_least(log(y), least))
    log_rest = where(zero(y) >= rest, least, at_least(log(rest) - ((rest - one) + y) / rest, least))  # rest is rounded
    value = zero(widen(y)) - widen(target) * widen(log_y) - widen(one - target) * widen(log_rest)
    return value, (y - target) / at_least(y * rest, splat_as(1e-12, y))


@precise
def hinge(y, target):
    sign = where(target > zero(y), splat_as(1.0, y), splat_as(-1.0, y))
    margin = splat_as(1.0, y) - sign * y
    return widen(at_least(margin, zero(y))), where(zero(y) >= margin, zero(y), zero(y) - sign)


@precise
def focal(y, target, gamma):
    sign = where(target > zero(y), splat_as(1.0, y), splat_as(-1.0, y))
    z = sign * y
    e = exp(zero(z) - absolute(z))
    p, rest = both_sigmoids(z, e)
    log_e, gammas = log1p(e), splat_as(gamma, z)
    loss = at_least(zero(z) - z, zero(z)) + log_e  # -log p
    power = exp(zero(z) - gammas * (at_least(z, zero(z)) + log_e))  # (1 - p)^gamma
    return widen(power * loss), zero(z) - sign * (power * (gammas * p * loss + rest))


FORMS = {  # and the cost of a number in elementary operations, for the choice of chunks
    "squared_error": (squared_error, 1),
    "absolute_error": (absolute_error, 1),
    "huber": (huber, 1),
    "binary_cross_entropy": (binary_cross_entropy, 2 * EXP),
    "binary_cross_entropy_of_probabilities": (binary_cross_entropy_of_probabilities, 2 * EXP),
    "hinge": (hinge, 1),
    "focal": (focal, 3 * EXP),
}


def _elementwise(form):
    @precise
    def run(part, parts, options, y, target, weights, weight, scale, losses, dy):
        """Vectors fix the order of sums: LLVM's own vector code runs only if no arrays overlap, and sums in another order."""
        start, stop = chunks.bounds(part, parts, y.shape[0])
        size, factor = y.shape[1], splat(y.dtype.type(weight * scale))
        predicted, expected, gradient = y.reshape(-1), target.reshape(-1), dy.reshape(-1)
        rest = np.empty(lanes(y), np.float64)
        for m in range(start, stop):
            total = widen(zero(factor))
            row = min(m, weights.shape[0] - 1)
            for i in range(0, size, lanes(y)):
                at, count = m * size + i, size - i
                value, slope = form(load(predicted, at, count), load(expected, at, count), *options)
                w = weights_of(weights, row, i, count)
                store(gradient, at, count, factor * w * slope)
                if count < lanes(y):  # the loss of (0, 0) may be another number than 0
                    store(rest, 0, count, value)
                    value = load_as(rest, 0, count, value)
                total = fma(widen(w), value, total)
            losses[m] = weight * sum_of_lanes(total)

    return run


TEMPLATE = """
@serial
def NAME_serial(y, target, weights, OPTIONS, weight, scale, losses, dy):
    n = chunks.count(y.shape[0], work * y.shape[1])
    for k in range(n):
        run(k, n, TUPLE, y, target, weights, weight, scale, losses, dy)


@parallel
def NAME_parallel(y, target, weights, OPTIONS, weight, scale, losses, dy):
    n = chunks.count(y.shape[0], work * y.shape[1])
    parallel_for(n, run, (n, TUPLE, y, target, weights, weight, scale, losses, dy))
"""


def _make(name, text, row):
    form, work = FORMS[name]
    return drivers(name, text, form.py_func, run=_elementwise(form), work=work)


__getattr__, __dir__ = made_from_table(globals(), {"NAME": TEMPLATE}, _make, TABLE.values(), ("_serial", "_parallel"))
