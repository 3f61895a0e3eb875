"""Losses in NumPy: the definition. See the contract in `nbnet.kernels.loss`."""

import numpy as np


def softmax_cross_entropy(logits, labels, scale, losses, hits, dlogits):
    rows = np.arange(len(logits))
    z = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, dtype=np.float64)
    losses[:] = np.log(total) - z[rows, labels]
    hits[:] = (logits.argmax(axis=1) == labels) & ~np.isnan(losses)
    dlogits[:] = e / total[:, None]
    dlogits[rows, labels] -= 1
    dlogits *= scale


def soft_cross_entropy(logits, shares, weights, scale, losses, hits, dlogits):
    z = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(z)
    total, share = (array.sum(axis=1, dtype=np.float64) for array in (e, shares))
    losses[:] = weights * (share * np.log(total) - (shares * np.where(shares > 0, z, 0)).sum(axis=1, dtype=np.float64))
    hits[:] = (logits.argmax(axis=1) == shares.argmax(axis=1)) & (share > 0) & ~np.isnan(losses)
    dlogits[:] = (e * (share / total)[:, None] - shares) * (weights * scale)[:, None]


# ------------------------------------------------------------------------------------------- element by element


def _write(value, slope, weights, weight, scale, losses, dy):
    losses[:] = weight * (weights * value).sum(axis=1, dtype=np.float64)
    dy[:] = weight * scale * weights * slope


def squared_error(y, target, weights, weight, scale, losses, dy):
    d = _difference(y, target)
    _write(d * d, 2 * d, weights, weight, scale, losses, dy)


def absolute_error(y, target, weights, weight, scale, losses, dy):
    d = _difference(y, target)
    _write(np.abs(d), np.sign(d), weights, weight, scale, losses, dy)


def huber(y, target, weights, delta, weight, scale, losses, dy):
    d = _difference(y, target)
    slope = np.clip(d, -delta, delta)
    _write(slope * (d - slope / 2), slope, weights, weight, scale, losses, dy)


def binary_cross_entropy(y, target, weights, weight, scale, losses, dy):
    value = np.maximum(y, 0) - y * target + np.log1p(np.exp(-np.abs(y)))
    _write(value, (1 - target) * _sigmoid(y) - target * _sigmoid(-y), weights, weight, scale, losses, dy)


def binary_cross_entropy_of_probabilities(y, target, weights, weight, scale, losses, dy):
    with np.errstate(divide="ignore"):
        value = -target * np.maximum(np.log(y), -100) - (1 - target) * np.maximum(np.log1p(-y), -100)
    _write(value, (y - target) / np.maximum(y * (1 - y), 1e-12), weights, weight, scale, losses, dy)


def hinge(y, target, weights, weight, scale, losses, dy):
    sign = np.where(target > 0, 1, -1)
    margin = 1 - sign * y
    _write(np.maximum(margin, 0), np.where(margin > 0, -sign, 0), weights, weight, scale, losses, dy)


def focal(y, target, weights, gamma, weight, scale, losses, dy):
    sign = np.where(target > 0, 1, -1)
    z = sign * y
    loss, p = np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z))), _sigmoid(z)
    power = np.exp(-gamma * (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))))  # (1 - p)^gamma
    _write(power * loss, -sign * power * (gamma * p * loss + _sigmoid(-z)), weights, weight, scale, losses, dy)


def _difference(y, target):
    return y.astype(np.float64, copy=False) - target


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
