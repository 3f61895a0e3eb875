"""Fused runs against the separate calls: y and gradients, by definition and by central differences."""

from functools import partial

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ShapeError
from nbnet.functional import fused
from nbnet.functional.activations import NAMED, Activation, activate, leaky_relu, relu, through
from nbnet.functional.batchnorm import Normalization, by_statistics
from nbnet.functional.conv2d import Window
from nbnet.functional.fused import Epilogue, Gradients, Product, epilogue_of

from .differences import BACKENDS, differences

F = nb.functional


def logistic(x):
    return 1 / (1 + np.exp(-x))


EPILOGUES = {
    "leaky relu": (Epilogue(slope=0.3), lambda z: np.where(z > 0, z, 0.3 * z), lambda y: np.where(y > 0, 1, 0.3)),
    "relu": (Epilogue(slope=0.0), lambda z: np.maximum(z, 0), lambda y: 1.0 * (y > 0)),
    "tanh": (Epilogue(smooth=Activation("tanh")), np.tanh, lambda y: 1 - y * y),
    "sigmoid": (Epilogue(smooth=Activation("sigmoid")), logistic, lambda y: y * (1 - y)),
}


def normalized(x, gamma, beta, epilogue, backend="parallel", constants=None, weights=None):
    be = nb.get_backend(backend)
    if constants is not None:
        by = Normalization(None, *constants, 1.0, gamma, beta, 1e-5)
    else:
        by = by_statistics(x.shape, F.batch_norm_stats(x, weights, backend=be), gamma, beta, 1e-5, weights, 0, None)
    return fused.normalization_forward(x, by, epilogue, be)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EPILOGUES)
def test_normalization_is_batch_norm_and_activation(rng, name, backend):
    epilogue, function, slope_at = EPILOGUES[name]
    x, dy = rng.standard_normal((50, 4)), rng.standard_normal((50, 4))
    gamma, beta = rng.standard_normal(4), rng.standard_normal(4)
    plain, plain_saved = F.batch_norm_forward(x, gamma, beta, backend=backend)
    y, saved = normalized(x, gamma, beta, epilogue, backend)
    assert_close(y, function(plain), "elementwise")
    given = dy.copy()
    for a, b in zip(fused.normalization_backward(dy, saved, Gradients()), F.batch_norm_backward(dy * slope_at(y), plain_saved)):
        assert_close(a, b, "reduction")
    assert_close(dy, given, "exact")
    with pytest.raises(ShapeError, match="dy has shape"):
        fused.normalization_backward(dy[:, :1], saved, Gradients())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMED)
def test_normalization_is_batch_norm_and_each_activation(rng, name, weighted, backend):
    activation, x = NAMED[name], 2 * rng.standard_normal((50, 4))
    gamma, beta, weights, dy = (
        rng.standard_normal(4),
        rng.standard_normal(4),
        rng.random(50) if weighted else None,
        rng.standard_normal((50, 4)),
    )
    plain, plain_saved = F.batch_norm_forward(x, gamma, beta, weights=weights, backend=backend)
    wanted, activation_saved = activate(plain, activation, nb.get_backend(backend))
    y, saved = normalized(x, gamma, beta, epilogue_of(activation), backend, weights=weights)
    assert_close(y, wanted, "elementwise")
    expected = F.batch_norm_backward(through(dy, activation_saved), plain_saved)
    for a, b in zip(fused.normalization_backward(dy, saved, Gradients()), expected):
        assert_close(a, b, "reduction")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
def test_normalization_with_max_pool(rng, slope, backend):
    x = rng.standard_normal((2, 5, 6, 3))
    gamma, beta = rng.standard_normal(3), rng.standard_normal(3)
    plain, plain_saved = F.batch_norm_forward(x, gamma, beta, backend=backend)
    wanted, pool_saved = F.max_pool2d_forward(np.where(plain > 0, plain, slope * plain), 2, backend=backend)
    y, saved = normalized(x, gamma, beta, Epilogue(slope, None, True), backend)
    assert_close(y, wanted, "elementwise")
    dy = rng.standard_normal(y.shape)
    through = F.max_pool2d_backward(dy, pool_saved) * np.where(plain > 0, 1, slope)
    for a, b in zip(fused.normalization_backward(dy, saved, Gradients()), F.batch_norm_backward(through, plain_saved)):
        assert_close(a, b, "reduction")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("max_pool", [False, True])
@pytest.mark.parametrize("name", ["leaky relu", "relu"])
def test_exact_zeros_and_a_constant_channel(rng, name, max_pool, backend):
    """Where the input of the activation is exactly 0, its derivative is the slope; a window of equals goes to the first."""
    (slope, _, _), _, slope_at = EPILOGUES[name]
    half = rng.integers(-1, 2, (2, 4, 6, 3)).astype(np.float64)
    x, gamma = np.concatenate([half, -half]), rng.standard_normal(3)
    x[..., 1] = 7
    plain, plain_saved = F.batch_norm_forward(x, gamma, None, backend=backend)
    assert (plain[..., 0] == 0).any()
    assert not plain[..., 1].any()
    y, saved = normalized(x, gamma, None, Epilogue(slope, None, max_pool), backend)
    dy = rng.standard_normal(y.shape)
    through = dy
    if max_pool:
        _, pool_saved = F.max_pool2d_forward(np.where(plain > 0, plain, slope * plain), 2, backend=backend)
        through = F.max_pool2d_backward(dy, pool_saved)
    wanted = F.batch_norm_backward(through * slope_at(plain), plain_saved)
    for a, b in zip(fused.normalization_backward(dy, saved, Gradients()), wanted):
        assert_close(a, b, "reduction")


CONSTANTS = (np.zeros(5), np.ones(5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [4, 60])
@pytest.mark.parametrize("kind", ["plain", "slope", "tanh", "gelu", "max_pool", "weights", "constants"])
def test_dy_that_may_be_overwritten(rng, kind, size, backend, dtype):
    x = rng.standard_normal((3, size, size, 5)).astype(dtype)
    epilogues = {"slope": Epilogue(0.2), "tanh": Epilogue(smooth=Activation("tanh")), "max_pool": Epilogue(max_pool=True)}
    epilogue = (epilogues | {"gelu": Epilogue(smooth=Activation("gelu"))}).get(kind, Epilogue())
    weights = rng.random(x.shape).astype(dtype) if kind == "weights" else None
    y, saved = normalized(x, None, None, epilogue, backend, CONSTANTS if kind == "constants" else None, weights)
    dy = rng.standard_normal(y.shape).astype(dtype)
    wanted, given = fused.normalization_backward(dy, saved, Gradients()), dy.copy()
    assert_close(dy, given, "exact")
    found = fused.normalization_backward(dy, saved, Gradients(), overwrite_dy=True)
    for a, b in zip(found, wanted):
        assert_close(a, b, "exact")
    if kind == "max_pool":
        assert_close(dy, given, "exact")
    else:
        assert np.shares_memory(found[0], dy)


def products(rng, backend):
    """A convolution and a dense layer: a function of x, weight and bias that makes the Product, and those arrays."""
    be = nb.get_backend(backend)
    image, weight, bias = rng.standard_normal((2, 5, 4, 2)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    yield lambda *arrays, be=be: Product(*arrays, be, Window()), F.conv2d_forward, [image, weight, bias]
    window, forward = Window(dilation=(2, 1), groups=3), partial(F.conv2d_forward, dilation=(2, 1), groups=3)
    for channels in (3, 6):  # each channel by itself; groups of two
        arrays = [rng.standard_normal((2, 5, 4, channels)), rng.standard_normal((3, 2, channels // 3, 3)), bias]
        yield lambda *arrays, be=be: Product(*arrays, be, window), forward, arrays
    yield lambda *arrays, be=be: Product(*arrays, be), F.dense_forward, [image[0, :, :, 0].copy(), rng.standard_normal((4, 3)), bias]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["tanh", "gelu", "hardtanh"])
def test_product_and_other_activations(rng, backend, name):
    """As the product and then the activation; only what the derivative needs is kept."""
    for make, forward, arrays in products(rng, backend):
        plain, plain_saved = forward(*arrays, backend=backend)
        wanted, activation_saved = activate(plain, NAMED[name], nb.get_backend(backend))
        y, saved = fused.product_activation_forward(make(*arrays), NAMED[name])
        assert_close(y, wanted, "exact")
        assert np.shares_memory(saved.activation.value, y) == (name != "gelu")
        dy = rng.standard_normal(y.shape)
        backward = F.dense_backward if forward is F.dense_forward else F.conv2d_backward
        dx, dweight, dbias = backward(through(dy, activation_saved), plain_saved)
        grads = Gradients(np.empty_like(dweight), np.empty_like(dbias))
        assert_close(fused.product_activation_backward(dy, saved, grads, True), dx, "exact")
        assert_close(grads.weight, dweight, "exact")
        assert_close(grads.bias, dbias, "exact")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_product_activation(rng, backend, slope):
    """y, and all gradients through the activation."""
    for make, forward, arrays in products(rng, backend):
        plain, _ = forward(*arrays, backend=backend)
        y, saved = fused.product_activation_forward(make(*arrays), leaky_relu(slope) if slope else relu())
        assert_close(y, np.where(plain > 0, plain, slope * plain), "exact")
        assert 0 < np.count_nonzero(plain > 0) < plain.size
        dy = rng.standard_normal(y.shape)
        grads = Gradients(np.empty_like(arrays[1]), np.empty_like(arrays[2]))
        dx = fused.product_activation_backward(dy, saved, grads, True)
        act = saved.activation.activation
        wanted = differences(lambda *a, m=make, act=act: fused.product_activation_forward(m(*a), act)[0], arrays, dy)
        for grad, numeric in zip((dx, *grads), wanted):
            assert_close(grad, numeric, "differences")
        assert fused.product_activation_backward(dy, saved, grads, False) is None
        with pytest.raises(ShapeError, match="dy has shape"):
            fused.product_activation_backward(dy[:, :1], saved, grads, True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_product_activation_of_exact_zeros(rng, backend, slope):
    """From whole numbers; where the product is 0, the derivative is the slope."""
    for make, forward, arrays in products(rng, backend):
        arrays = [rng.integers(-1, 2, array.shape).astype(np.float64) for array in arrays]
        plain, plain_saved = forward(*arrays, backend=backend)
        assert (plain == 0).any()
        y, saved = fused.product_activation_forward(make(*arrays), leaky_relu(slope) if slope else relu())
        dy = rng.standard_normal(y.shape)
        backward = F.dense_backward if forward is F.dense_forward else F.conv2d_backward
        wanted = backward(dy * np.where(plain > 0, 1, slope), plain_saved)
        grads = Gradients(np.empty_like(arrays[1]), np.empty_like(arrays[2]))
        for a, b in zip((fused.product_activation_backward(dy, saved, grads, True), *grads), wanted):
            assert_close(a, b, "matmul")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["none", "leaky relu", "relu"])
def test_product_norm_of_a_constant_channel(rng, backend, name):
    """A channel whose weights are 0 is constant, and exactly 0 after the batch norm."""
    epilogue, _, slope_at = EPILOGUES[name] if name in EPILOGUES else (Epilogue(), None, lambda y: np.ones_like(y))
    gamma = rng.standard_normal(3)
    for make, forward, (x, weight, _) in products(rng, backend):
        weight[..., 1] = 0
        plain, product_saved = forward(x, weight, backend=backend)
        z, norm_saved = F.batch_norm_forward(plain, gamma, None, backend=backend)
        assert not z[..., 1].any()
        numbers = lambda y, stats: by_statistics(y.shape, stats, gamma, None, 1e-5, None, 0, None)  # noqa: E731
        y, saved = fused.product_norm_forward(make(x, weight, None), numbers, True, epilogue)
        dy = rng.standard_normal(y.shape)
        dz, dgamma, _ = F.batch_norm_backward(dy * slope_at(z), norm_saved)
        dx, dweight, *_ = (F.dense_backward if forward is F.dense_forward else F.conv2d_backward)(dz, product_saved)
        for need_dx in (True, False):
            grads = Gradients(weight=np.empty_like(weight), gamma=np.empty_like(gamma))
            found = fused.product_norm_backward(dy, saved, grads, need_dx)
            assert_close(grads.weight, dweight, "reduction")
            assert_close(grads.gamma, dgamma, "reduction")
            if need_dx:
                assert_close(found, dx, "reduction")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["inverted", "vanilla"])
def test_product_dropout(rng, backend, variant):
    counter = np.array([3, 1, 2], np.uint64)
    for make, forward, arrays in products(rng, backend):
        run = lambda *a, m=make: fused.product_dropout_forward(m(*a), 0.4, counter, variant, True)  # noqa: E731
        y, saved = run(*arrays)
        rectified = np.maximum(forward(*arrays, backend=backend)[0], 0)
        wanted, _ = F.dropout_forward(rectified, 0.4, seed=3, stream=1, step=2, variant=variant, backend=backend)
        assert_close(y, wanted, "exact")
        dy = rng.standard_normal(y.shape)
        grads = Gradients(np.empty_like(arrays[1]), np.empty_like(arrays[2]))
        dx = fused.product_dropout_backward(dy, saved, grads, True)
        for grad, numeric in zip((dx, *grads), differences(lambda *a, r=run: r(*a)[0], arrays, dy)):
            assert_close(grad, numeric, "differences")


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["none", *EPILOGUES])
def test_product_norm(rng, backend, name, constants):
    """y, and all gradients through the batch norm and its epilogue; without dx too, where a dense layer takes another way.

    Without a bias under batch statistics, since its gradient is 0 there.
    """
    epilogue = EPILOGUES[name][0] if name in EPILOGUES else Epilogue()
    gamma, beta, moving = rng.standard_normal(3), rng.standard_normal(3), (rng.standard_normal(3), 0.5 + rng.random(3))

    def numbers(y, stats):
        if constants:
            return Normalization(None, *moving, 1.0, gamma, beta, 1e-5)
        return by_statistics(y.shape, stats, gamma, beta, 1e-5, None, 0, None)

    for make, forward, (x, weight, bias) in products(rng, backend):
        layer = [bias] if constants else []

        def run(x, weight, *rest, m=make):
            bias = rest[0] if constants else None
            return fused.product_norm_forward(m(x, weight, bias), numbers, not constants, epilogue)

        y, saved = run(x, weight, *layer)
        plain, _ = forward(x, weight, *layer, backend=backend)
        assert_close(y, normalized(plain, gamma, beta, epilogue, backend, moving if constants else None)[0], "reduction")
        dy = rng.standard_normal(y.shape)
        wanted = differences(lambda *a, r=run: r(*a)[0], [x, weight, *layer, gamma, beta], dy)
        for need_dx in (True, False):
            grads = Gradients(np.empty_like(weight), np.empty_like(bias) if constants else None, np.empty_like(gamma), np.empty_like(beta))
            dx = fused.product_norm_backward(dy, saved, grads, need_dx)
            assert (dx is None) != need_dx
            found = [grad for grad in (dx, *grads) if grad is not None]
            for grad, numeric in zip(found, wanted if need_dx else wanted[1:], strict=True):
                assert_close(grad, numeric, "differences")


@pytest.mark.parametrize(
    ("inputs", "activation", "need_dx", "chosen"),
    [(8, nb.Tanh, False, 1), (8, None, False, 1), (9, nb.Tanh, False, 0), (8, nb.ReLU, False, 0), (8, nb.Tanh, True, 0)],
)
def test_when_a_dense_layer_spares_the_gradient_of_its_outputs(monkeypatch, inputs, activation, need_dx, chosen):
    calls = []
    spared = fused._backward_weights_norm
    monkeypatch.setattr(fused, "_backward_weights_norm", lambda *arguments: calls.append(spared(*arguments)))
    model = nb.Sequential([nb.Dense(5), nb.BatchNorm(), *([activation()] if activation else [])])
    model.build((inputs,), backend="serial")
    y, tape = model.forward(np.ones((6, inputs), np.float32), train=True)
    model.backward(np.ones_like(y), tape, need_dx=need_dx)
    assert len(calls) == chosen
