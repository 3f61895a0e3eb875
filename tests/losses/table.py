"""All losses in one table, and what their tests share."""

import numpy as np
import pytest

BACKENDS = ["numpy", "serial", "parallel"]


def cross_entropy_of_rows(logits, labels):
    z = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]


def shares(rng):
    parts = rng.uniform(size=(5, 4))
    parts[1, 2] = 0
    return parts / parts.sum(axis=1, keepdims=True)


def divergence(logits, t):
    logs = np.log(t, out=np.zeros(t.shape), where=t > 0)
    return (t * (logs - np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1)


def mean(values):
    return values.reshape(5, -1).mean(axis=1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bernoulli(p, t):
    return mean(-t * np.log(sigmoid(p)) - (1 - t) * np.log(1 - sigmoid(p)))


def focal(p, t):
    right = np.where(t > 0, sigmoid(p), 1 - sigmoid(p))
    return mean(-((1 - right) ** 2) * np.log(right))


def triplet(p, t):
    near, far = (np.sqrt(((p[0] - other) ** 2).sum(axis=1)) for other in p[1:])
    return np.maximum(near - far + 1, 0)


SHAPE = (5, 2, 3)
# name: shape of the prediction, targets from a generator, losses of the rows in NumPy
TABLE = {
    "softmax_cross_entropy": ((5, 4), lambda rng: rng.integers(0, 4, 5), cross_entropy_of_rows),
    "binary_cross_entropy": (SHAPE, lambda rng: rng.uniform(size=SHAPE), bernoulli),
    "mean_squared_error": (SHAPE, lambda rng: rng.normal(size=SHAPE), lambda p, t: mean((p - t) ** 2)),
    "sum_squared_error": (SHAPE, lambda rng: rng.normal(size=SHAPE), lambda p, t: 6 * mean((p - t) ** 2)),
    "mean_absolute_error": (SHAPE, lambda rng: rng.normal(size=SHAPE), lambda p, t: mean(abs(p - t))),
    "huber": (SHAPE, lambda rng: rng.normal(size=SHAPE), lambda p, t: mean(np.where(abs(p - t) < 1, (p - t) ** 2 / 2, abs(p - t) - 0.5))),
    "kl_divergence": ((5, 4), shares, divergence),
    "hinge": (SHAPE, lambda rng: rng.choice([-1, 1], SHAPE), lambda p, t: mean(np.maximum(0, 1 - t * p))),
    "focal": (SHAPE, lambda rng: rng.integers(0, 2, SHAPE), focal),
    "triplet": ((3, 5, 4), lambda rng: np.zeros(5), triplet),
}

all_losses = pytest.mark.parametrize("name", TABLE)


def predictions(name, array):
    """The array as the loss takes it: a tuple of three outputs for triplets."""
    return tuple(array) if name == "triplet" else array


def stacked(gradient):
    return np.array(gradient)


def differences_of(loss, name, prediction, target, **options):
    """Of the sum of the rows' losses, by central differences."""
    differences = np.empty(prediction.shape)
    for index in np.ndindex(prediction.shape):
        moved = [prediction.copy(), prediction.copy()]
        moved[0][index] += 1e-5
        moved[1][index] -= 1e-5
        up, down = (loss(predictions(name, p), target, **options).total for p in moved)
        differences[index] = (up - down) / 2e-5
    return differences
