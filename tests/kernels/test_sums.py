"""Sums of many positive numbers in float32. Added up one after the other, a million of them lose three or four digits."""

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import functional as F
from nbnet import losses
from nbnet.kernels import load

from .harness import not_simulated

MANY = 1 << 20
pytestmark = [not_simulated, pytest.mark.parametrize("backend", ["numpy", "serial", "parallel"])]


def positive(rng, *shape):
    return rng.random(shape, dtype=np.float32)


def tenths(*shape):
    """Every sum rounds in the same direction."""
    return np.full(shape, 0.1, np.float32)


def close(actual, wanted):
    assert_close(actual, np.asarray(wanted, np.float64), "reduction", "float32")


@pytest.mark.parametrize("outputs", [3, 24], ids=["few outputs", "many outputs"])
def test_gradients_of_dense(rng, backend, outputs):
    x, dy = positive(rng, MANY, 19), positive(rng, MANY, outputs)
    _, saved = F.dense_forward(x, positive(rng, 19, outputs), backend=backend)
    _, dweight, _ = F.dense_backward(dy, saved, need_dx=False)
    close(dweight, x.astype(np.float64).T @ dy)
    dy = tenths(MANY, outputs)
    _, _, dbias = F.dense_backward(dy, saved, need_dx=False)
    close(dbias, dy.sum(axis=0, dtype=np.float64))


def test_dense_with_many_inputs(rng, backend):
    x, weight = positive(rng, 3, MANY), positive(rng, MANY, 5)
    close(F.dense_forward(x, weight, 1e4 * tenths(5), backend=backend)[0], x.astype(np.float64) @ weight + 1e3)


def test_dense_with_many_outputs(rng, backend):
    dy, weight = positive(rng, 3, MANY), positive(rng, 5, MANY)
    _, saved = F.dense_forward(positive(rng, 3, 5), weight, backend=backend)
    close(F.dense_backward(dy, saved)[0], dy.astype(np.float64) @ weight.T)


@pytest.mark.parametrize(
    "kernel",
    [(16, 1, 1, 8, 24), (16, 3, 3, 3, 4), (16, 3, 3, 16, 16), (16, 1, 3, 16, 16), (6, 1, 7, 32, 32)],
    ids=["1 by 1", "3 by 3", "minimal filtering", "lines", "nested lines"],
)
def test_gradients_of_conv2d(rng, backend, kernel):
    images, height, width, inputs, outputs = kernel
    x, dy = positive(rng, images, 256, 256, inputs), positive(rng, images, 256, 256, outputs)
    _, saved = F.conv2d_forward(x, positive(rng, height, width, inputs, outputs), backend=backend)
    _, dweight, _ = F.conv2d_backward(dy, saved, need_dx=False)
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (3, 3), (0, 0)))
    for kh, kw in {(0, 0), (height - 1, width // 2)}:
        top, left = kh + 1 - height // 2, kw + 3 - width // 2
        window = wide[:, top : top + 256, left : left + 256].reshape(-1, inputs)
        close(dweight[kh, kw], window.T @ dy.reshape(-1, outputs).astype(np.float64))
    dy = tenths(*dy.shape)
    _, _, dbias = F.conv2d_backward(dy, saved, need_dx=False)
    close(dbias, dy.sum(axis=(0, 1, 2), dtype=np.float64))


def test_dense_through_a_norm(rng, backend):
    """With a = 1 and b = c = 0 it is the gradient of dense."""
    x, dy, y = positive(rng, MANY, 3), positive(rng, MANY, 4), positive(rng, MANY, 4)
    products, moments, ones = np.empty((64, 3, 4)), np.empty((64, 3, 4)), np.ones(4, np.float32)
    norm = np.zeros(4), 0 * ones, dy.sum(axis=0, dtype=np.float64), ones, 0 * ones, 0 * ones
    dweight, dbias = np.empty((3, 4), np.float32), np.empty(4, np.float32)
    load("dense.backward_weights_norm", backend)(x, dy, y, positive(rng, 3, 4), *norm, products, moments, dweight, dbias)
    close(dweight, x.astype(np.float64).T @ dy)
    close(dbias, norm[2])


def test_normalization(rng, backend):
    x, dy, gamma = positive(rng, MANY, 3), tenths(MANY, 3), np.ones(3, np.float32)
    total = dy.sum(axis=0, dtype=np.float64)
    y, saved = F.batch_norm_forward(x, gamma, gamma, backend=backend)
    assert_close(y.mean(axis=0, dtype=np.float64), gamma, "reduction", "float32")
    close(F.batch_norm_backward(dy, saved)[2], total)
    images = x.reshape(4, 512, 512, 3)
    _, saved = F.group_norm_forward(images, gamma, gamma, 1, backend=backend)
    close(F.group_norm_backward(dy.reshape(images.shape), saved)[2], total)
    close(F.moments(tenths(MANY, 3), 0, backend=backend)[0], gamma * np.float32(0.1))


def test_pools_losses_and_norms(backend):
    x = tenths(1, 1024, 1024, 3)
    close(F.avg_pool2d_forward(x, 1024, backend=backend)[0], x[:, :1, :1])
    loss = losses.sum_squared_error(x.reshape(1, -1), np.zeros((1, x.size), np.float32), backend=backend)
    square = float(x[0, 0, 0, 0]) ** 2
    close(np.array(loss.total), np.array(square * x.size))
    loss = losses.softmax_cross_entropy(x.reshape(-1, 3), np.zeros(MANY, np.int64), backend=backend)
    close(np.array(loss.total), np.array(np.log(3) * MANY))
    total = np.empty(1)
    load("array.squares", backend)(x.reshape(-1), total)
    close(total, np.array([square * x.size]))
