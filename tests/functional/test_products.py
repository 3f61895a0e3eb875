"""Convolution, dense and pooling on plain arrays: formulas, gradients, and the errors of all calls."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError

from .differences import BACKENDS, differences

F = nb.functional


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), ((2, 1), "valid"), (3, 2), (1, 0)])
def test_conv2d(rng, backend, stride, padding):
    x, weight, bias = rng.standard_normal((2, 7, 6, 2)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    y, saved = F.conv2d_forward(x, weight, bias, stride=stride, padding=padding, backend=backend)
    dy = rng.standard_normal(y.shape)
    grads = F.conv2d_backward(dy, saved)
    wanted = differences(lambda *a: F.conv2d_forward(*a, stride=stride, padding=padding, backend="numpy")[0], [x, weight, bias], dy)
    for grad, numeric in zip(grads, wanted):
        assert_close(grad, numeric, "differences")


def test_conv2d_against_a_loop(rng):
    x, weight, bias = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((3, 3, 3, 4)), rng.standard_normal(4)
    y, _ = F.conv2d_forward(x, weight, bias, stride=2, padding=1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for n, h, w, o in np.ndindex(y.shape):
        wanted = bias[o] + np.sum(padded[n, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3] * weight[..., o])
        assert_close(y[n, h, w, o], wanted, "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense(rng, backend):
    x, weight, bias, dy = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3), rng.standard_normal((5, 3))
    y, saved = F.dense_forward(x, weight, bias, backend=backend)
    assert_close(y, np.einsum("mi,io->mo", x, weight) + bias, "matmul")
    dx, dweight, dbias = F.dense_backward(dy, saved)
    assert_close(dx, np.einsum("mo,io->mi", dy, weight), "matmul")
    assert_close(dweight, np.einsum("mi,mo->io", x, dy), "matmul")
    assert_close(dbias, dy.sum(axis=0), "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, None, "valid"), (3, 2, "same"), ((3, 2), (1, 2), 1)])
def test_pools(rng, backend, size, stride, padding):
    x = rng.standard_normal((2, 7, 6, 3))
    for name in ("max_pool2d", "avg_pool2d"):
        forward, backward = getattr(F, f"{name}_forward"), getattr(F, f"{name}_backward")
        y, saved = forward(x, size, stride, padding, backend=backend)
        dy = rng.standard_normal(y.shape)
        (wanted,) = differences(lambda a, f=forward: f(a, size, stride, padding, backend="numpy")[0], [x], dy)
        assert_close(backward(dy, saved), wanted, "differences")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: F.conv2d_forward(x, np.ones((3, 3, 2, 4))),
            r"x has 3 channels, but weight has shape \(3, 3, 2, 4\): expected \(KH, KW, 3, filters\)",
        ),
        (
            lambda x: F.conv2d_forward(x, np.ones((3, 3, 2, 6)), groups=3),
            r"weight has shape \(3, 3, 2, 6\) and groups=3: expected \(KH, KW, 1, filters\)",
        ),
        (lambda x: F.conv2d_forward(x[0], np.ones((3, 3, 3, 4))), r"expected 4 axes \(N, H, W, C\)"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4), np.float32)), "weight has dtype float32, expected float64"),
        (lambda x: F.conv2d_forward(x, np.ones((9, 9, 3, 4)), padding="valid"), "does not fit an image of height 8"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), np.ones(3)), r"bias has shape \(3,\), expected \(4,\)"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), stride=0), "stride=0"),
        (lambda x: F.conv2d_forward(x, np.ones((3, 3, 3, 4)), padding="full"), "padding='full'"),
        (lambda x: F.dense_forward(x, np.ones((3, 4))), "x has shape .*, expected 2 axes"),
        (lambda x: F.dense_forward(x[0, 0], np.ones((4, 4))), "3 features"),
        (lambda x: F.max_pool2d_forward(x, 9), "does not fit"),
        (lambda x: F.avg_pool2d_forward(x, 2, padding=2), "some windows would hold no pixel"),
        (lambda x: F.max_pool2d_forward(x, 2, backend="gpu"), "unknown backend 'gpu'"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(nb.NbnetError, match=message):
        call(np.ones((2, 8, 8, 3)))


@pytest.mark.parametrize("wrong", [{"stride": 1.0}, {"stride": True, "padding": True}, {"padding": True}, {"stride": np.ones(2)}], ids=str)
def test_conv2d_checks_its_options_each_time(wrong):
    """Also where equal numbers of another type were right before: 1 == 1.0 == True."""
    x, weight = np.ones((1, 5, 5, 2)), np.ones((3, 3, 2, 4))
    F.conv2d_forward(x, weight, stride=1, padding=1, backend="numpy")
    F.conv2d_forward(x, weight, stride=1, backend="numpy")
    with pytest.raises(ArgumentError):
        F.conv2d_forward(x, weight, backend="numpy", **wrong)
