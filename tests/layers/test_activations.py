"""Layers with an activation of their own, and PReLU."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import BuildError
from nbnet.layers.activations import BY_NAME

PRODUCTS = {
    "conv2d": (lambda activation: nb.Conv2D(5, 3, stride=2, activation=activation), (7, 6, 3)),
    "dense": (lambda activation: nb.Dense(5, activation=activation), (7,)),
}
products = pytest.mark.parametrize("kind", PRODUCTS)
names = pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "gelu", "gelu_tanh", "hardtanh"])


def passes(layers, shape, fuse, after=()):
    """y, dx and the gradients of a model."""
    model = nb.Sequential([*layers, *after])
    model.build(shape, backend="parallel", dtype="float64", seed=2, fuse=fuse)
    rng = np.random.default_rng(1)
    for param in model.params.values():  # what a layer starts with depends on its place
        param.value[:] = rng.normal(size=param.value.shape)
    x = rng.normal(size=(4, *shape))
    y, tape = model.forward(x, train=True)
    dx = model.backward(rng.normal(size=y.shape), tape)
    assert_close(model.forward(x)[0], y, "exact") if not after else None
    return [y, dx, *(param.grad.copy() for param in model.params.values())], model


@pytest.mark.parametrize("fuse", [True, False])
@names
@products
def test_as_the_layer_and_then_the_activation(kind, name, fuse):
    make, shape = PRODUCTS[kind]
    one, model = passes([make(name)], shape, fuse)
    two, _ = passes([make(None), BY_NAME[name]()], shape, fuse)
    for a, b in zip(one, two, strict=True):
        assert_close(a, b, "exact")
    assert repr(model.layers[0]).endswith(f"activation={name!r})")


@pytest.mark.parametrize("name", ["relu", "gelu"])
@products
def test_before_other_layers(kind, name):
    """A layer with an activation is no part of a run that expects the layer alone."""
    make, shape = PRODUCTS[kind]
    rest = [nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dropout(0.0), nb.Dense(3, activation="silu")]
    one, _ = passes([make(name)], shape, True, rest)
    two, _ = passes([make(None), BY_NAME[name]()], shape, False, [*rest[:-1], nb.Dense(3), nb.SiLU()])
    for a, b in zip(one, two, strict=True):
        assert_close(a, b, "reduction")


def test_an_activation_is_set_before_build():
    model = nb.Sequential([nb.Dense(3), nb.BatchNorm(), nb.Dense(3), nb.ReLU()])
    model.build((2,), backend="serial")
    x = np.ones((4, 2), np.float32)
    for i in (0, 2):
        model.layers[i].activation = "relu"
        with pytest.raises(BuildError, match="set its activation before build"):
            model.forward(x)
        model.layers[i].activation = None
    model.forward(x)


def test_folding_keeps_a_batch_norm_after_an_activation(rng):
    layers = [nb.Dense(4, activation="gelu"), nb.BatchNorm(), nb.Dense(3), nb.BatchNorm(activation="silu"), nb.Dense(3, activation="relu")]
    model = nb.Sequential(layers)
    model.build((5,), backend="serial", dtype="float64")
    x = rng.normal(size=(20, 5))
    model.forward(x, train=True)
    folded = nb.fold_batch_norm(model)
    assert [type(layer).__name__ for layer in folded.layers] == ["Dense", "BatchNorm", "Dense", "SiLU", "Dense"]
    assert_close(folded.predict(x), model.predict(x), "matmul")


def test_batch_norm_with_the_slope_of_leaky_relu(rng):
    x = rng.normal(size=(20, 3)).astype(np.float32)
    layer, plain = nb.BatchNorm(activation="leaky_relu", slope=0.3), nb.BatchNorm()
    for each in (layer, plain):
        each.build((3,), backend="serial")
    y, z = layer.forward(x, train=True)[0], plain.forward(x, train=True)[0]
    assert_close(y, np.where(z > 0, z, np.float32(0.3) * z), "elementwise")


def test_training_is_the_same_with_and_without_replay(rng):
    x, y = rng.normal(size=(64, 5)).astype(np.float32), rng.integers(0, 3, 64)
    losses = []
    for replay in (False, True):
        model = nb.Sequential([nb.Dense(8, activation="gelu"), nb.PReLU(), nb.BatchNorm(activation="mish"), nb.Dense(3), nb.LogSoftmax()])
        model.build((5,), backend="parallel", seed=1)
        trainer = nb.Trainer(model, loss="softmax_cross_entropy", optimizer=nb.Adam(0.02), replay=replay)
        losses.append([trainer.train_batch(x, y)["loss"] for _ in range(20)])
        assert model.params["1.prelu.weight"].value != 0.25
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.8 * losses[0][0]
