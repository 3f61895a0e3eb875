"""Initialisers: their variances, and what they depend on."""

import copy
import math

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import initializers
from nbnet.errors import ArgumentError, BuildError, DTypeError, NonFiniteError, ShapeError


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", 2 / 900),
        ("he_uniform", 2 / 900),
        ("glorot_normal", 2 / (900 + 1800)),
        ("glorot_uniform", 2 / (900 + 1800)),
        ("lecun_normal", 1 / 900),
        ("lecun_uniform", 1 / 900),
        ("torch_uniform", 1 / 2700),
    ],
)
def test_variance_of_initializers(name, variance):
    values = initializers.get(name)(initializers.generator(1, 2), (3, 3, 100, 200))
    error = 4 * math.sqrt(2 / values.size)  # four standard errors of a variance, relative
    assert abs(values.var() / variance - 1) < error
    assert abs(values.mean()) < 4 * math.sqrt(variance / values.size)
    if name.endswith("uniform"):
        assert abs(values).max() <= math.sqrt(3 * variance)


def test_generators_depend_on_seed_and_stream_alone():
    draw = [initializers.generator(*key).random() for key in [(1, 2), (1, 2), (2, 2), (1, 3)]]
    assert draw[0] == draw[1]
    assert len(set(draw)) == 3


def test_fans_need_two_axes():
    with pytest.raises(ArgumentError, match="at least 2 axes"):
        initializers.get("he_normal")(initializers.generator(0, 0), (5,))


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 3, 2, 5), (1, 2, 2, 9)])
def test_orthogonal(shape):
    weight = initializers.get("orthogonal")(initializers.generator(1, 2), shape).reshape(-1, shape[-1])
    weight = weight if len(weight) >= shape[-1] else weight.T
    assert_close(weight.T @ weight, np.eye(weight.shape[1]), "reduction")


def test_orthogonal_matrices_are_equally_likely():
    """Their first elements have mean 0, and variance 1 / rows."""
    firsts = [initializers.get("orthogonal")(initializers.generator(seed, 0), (3, 3))[0, 0] for seed in range(400)]
    assert abs(np.mean(firsts)) < 4 * math.sqrt(1 / 3 / 400)


# ------------------------------------------------------------------------------------------------------- from data


def first_layer(backend="serial", dtype="float64", kernel=2, **options):
    model = nb.Sequential([nb.Conv2D(2 * kernel**2 * 3, kernel, padding="valid", **options), nb.ReLU(), nb.Flatten(), nb.Dense(3)])
    model.build((6, 5, 3), backend=backend, dtype=dtype)
    return model


@pytest.fixture
def images(rng):
    """With correlated pixels and channels."""
    noise = rng.normal(size=(600, 6, 5, 3))
    return (noise + np.roll(noise, 1, axis=1) + noise.mean(axis=3, keepdims=True)) @ rng.normal(size=(3, 3))


@pytest.mark.parametrize("backend", ["serial", "parallel", "numpy"])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_whitening(images, backend, kernel):
    """The outputs have no correlation, and variance 1, where eps is small; the second half is the negative first."""
    layer = first_layer(backend, kernel=kernel)[0]
    layer.params["bias"].value[:] = 3
    nb.initializers.whitening(layer, images, eps=1e-12)
    y = layer.forward(images)[0].reshape(-1, layer.filters)
    half = layer.filters // 2
    assert_close(y[:, :half].T @ y[:, :half] / len(y), np.eye(half), "training")
    assert np.array_equal(y[:, half:], -y[:, :half])
    assert not layer.params["weight"].trainable
    assert layer.params["bias"].trainable


def test_whitening_by_its_formula(images):
    """Eigenvectors of the moments of patches that are cut one by one, the largest eigenvalue first, divided by sqrt(eigenvalue + eps)."""
    layer = first_layer("numpy")[0]
    nb.initializers.whitening(layer, images, eps=0.1)
    patches = np.array([image[i : i + 2, j : j + 2].reshape(-1) for image in images for i in range(5) for j in range(4)])
    moments = patches.T @ patches / len(patches)
    weight = layer.params["weight"].value.reshape(12, 24)[:, :12]
    values = np.linalg.eigvalsh(moments)[::-1]
    assert_close(np.linalg.norm(weight, axis=0), 1 / np.sqrt(values + 0.1), "matmul")
    assert_close(moments @ weight, weight * values, "training")
    assert all(column[np.abs(column).argmax()] > 0 for column in weight.T)


def test_whitening_of_bytes_and_without_a_bias(images):
    """Bytes are divided by 255, as a model does; the layer may be frozen already."""
    one, two = first_layer(use_bias=False)[0], first_layer(use_bias=False)[0]
    pixels = np.clip(images * 20 + 100, 0, 255).astype(np.uint8)
    two.params["weight"].trainable = False
    nb.initializers.whitening(one, pixels)
    nb.initializers.whitening(two, pixels / 255)
    assert np.array_equal(one.params["weight"].value, two.params["weight"].value)
    assert not one.params["weight"].trainable


def test_a_whitened_layer_trains_its_bias_alone(images):
    model = first_layer()
    nb.initializers.whitening(model[0], images)
    before = model.params["0.conv2d.weight"].value.copy()
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    trainer.fit((images, np.arange(600) % 3), 1, progress=False)
    assert np.array_equal(model.params["0.conv2d.weight"].value, before)
    assert model.params["0.conv2d.bias"].value.all()


WRONG_LAYERS = {
    "filters": (lambda: nb.Conv2D(23, 2), ArgumentError, r"got 23 filters, expected 24: use nb\.Conv2D\(24, \(2, 2\)\)$"),
    "groups": (lambda: nb.Conv2D(24, 2, groups=3), ArgumentError, "expected a Conv2D without groups and dilation"),
    "dilation": (lambda: nb.Conv2D(24, 2, dilation=2), ArgumentError, "expected a Conv2D without groups and dilation"),
    "depthwise": (lambda: nb.DepthwiseConv2D(2, multiplier=8), ArgumentError, "expected a Conv2D"),
    "pooling": (lambda: nb.MaxPool2D(2), ArgumentError, r"got nb\.MaxPool2D\(\), expected a Conv2D"),
}


@pytest.mark.parametrize("kind", WRONG_LAYERS)
def test_layers_that_do_not_whiten(images, kind):
    make, error, words = WRONG_LAYERS[kind]
    layer = make()
    layer.build((6, 5, 3), backend="serial", dtype="float64")
    before = {name: param.value.copy() for name, param in layer.params.items()}
    with pytest.raises(error, match=f"^whitening .*{words}"):
        nb.initializers.whitening(layer, images)
    assert all(np.array_equal(param.value, before[name]) and param.trainable for name, param in layer.params.items())


def test_the_hint_on_filters_is_followed(images):
    layer = nb.Conv2D(23, 2)
    layer.build((6, 5, 3), backend="serial", dtype="float64")
    with pytest.raises(ArgumentError) as caught:
        nb.initializers.whitening(layer, images)
    layer = eval(str(caught.value).partition("use ")[2])
    layer.build((6, 5, 3), backend="serial", dtype="float64")
    nb.initializers.whitening(layer, images)


WRONG_IMAGES = {
    "shape": (lambda x: x[:, 1:], ShapeError, r"of shape \(600, 5, 5, 3\), expected \(N, 6, 5, 3\)"),
    "none": (lambda x: x[:0], ShapeError, "with N at least 1"),
    "dtype": (lambda x: x.astype(int), DTypeError, "of dtype int64, expected uint8, float32 or float64"),
    "NaN": (lambda x: np.where(np.arange(3) == 1, np.nan, x), NonFiniteError, "with NaN or infinity, or too large"),
}


@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_images_that_do_not_fit(images, kind):
    change, error, words = WRONG_IMAGES[kind]
    layer = first_layer()[0]
    before = layer.params["weight"].value.copy()
    with pytest.raises(error, match=words):
        nb.initializers.whitening(layer, change(images))
    with pytest.raises(ArgumentError, match=r"^eps=0: expected a finite number above 0$"):
        nb.initializers.whitening(layer, images, eps=0)
    assert np.array_equal(layer.params["weight"].value, before)
    assert layer.params["weight"].trainable


def test_what_is_not_built():
    with pytest.raises(BuildError, match="whitening expects a built layer or model"):
        nb.initializers.whitening(nb.Conv2D(24, 2), np.zeros((2, 6, 5, 3)))
    with pytest.raises(ArgumentError, match="whitening got ndarray, expected a built layer"):
        nb.initializers.whitening(np.zeros(3), nb.Conv2D(24, 2))
    with pytest.raises(BuildError, match="lsuv expects a built layer or model"):
        nb.initializers.lsuv(nb.Sequential([nb.Dense(3)]), np.zeros((2, 3)))
    with pytest.raises(ArgumentError, match="lsuv got Dense, expected a built model"):
        nb.initializers.lsuv(nb.Dense(3), np.zeros((2, 3)))


def deep_model(backend="serial", **options):
    inner = [nb.DepthwiseConv2D(3), nb.Conv2D(8, 3, activation="gelu"), nb.Conv2D(8, 1)]
    layers = [nb.Conv2D(8, 3), nb.ReLU(), nb.Residual(inner), nb.ConvTranspose2D(8, 2, stride=2), nb.BatchNorm(), nb.MaxPool2D(2)]
    model = nb.Sequential([*layers, nb.Flatten(), nb.Dropout(0.5), nb.Dense(30, activation="tanh"), nb.Dense(3)])
    model.build((6, 5, 3), backend=backend, dtype="float64", **options)
    return model


def products(model):
    return [layer for layer in model.walk() if "weight" in layer.params and not isinstance(layer, nb.Sequential | nb.Residual)]


@pytest.mark.parametrize("backend", ["serial", "numpy"])
@pytest.mark.parametrize("fuse", [True, False])
def test_lsuv(images, backend, fuse):
    """Every product has variance 1 before its activation, and a weight that is orthonormal but for its scale; nothing else changes."""
    model = deep_model(backend, fuse=fuse)
    others = {name: array.copy() for name, array in model.state().items() if not name.endswith("weight")}
    model[0].params["weight"].trainable = False
    nb.initializers.lsuv(model, images)
    seen = {}
    for layer in products(model):

        def forward(x, train=False, layer=layer):
            seen[layer.name] = initializers_output(layer, x)
            return type(layer).forward(layer, x, train)

        layer.forward = forward
    model.forward(images)
    assert len(seen) == len(products(model)) == 7
    assert all(abs(variance - 1) <= 0.1 for variance in seen.values()), seen
    for layer in products(model):
        weight = np.asarray(layer.params["weight"].value)
        matrix = weight.reshape(9, -1) if isinstance(layer, nb.DepthwiseConv2D) else weight.reshape(-1, weight.shape[-1])
        matrix = matrix if len(matrix) >= matrix.shape[1] else matrix.T
        gram = matrix.T @ matrix
        assert_close(gram, np.eye(len(gram)) * gram[0, 0], "reduction", what=layer.name)
    assert all(np.array_equal(model.state()[name], array) for name, array in others.items())
    assert [layer.activation for layer in products(model) if hasattr(layer, "activation")] == [None, None, "gelu", None, "tanh", None]


def initializers_output(layer, x):
    """The variance before the activation."""
    alone = copy.copy(layer)
    alone.__dict__.pop("forward", None)
    if "activation" in vars(alone):
        alone.activation = None
    return np.asarray(type(layer).forward(alone, x)[0]).var()


def test_lsuv_is_the_same_for_a_seed(images):
    models = [deep_model(seed=seed) for seed in (1, 1, 2)]
    for model in models:
        nb.initializers.lsuv(model, images)
    first, second, third = (model.params["0.conv2d.weight"].value for model in models)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_lsuv_of_the_layers_after_the_first(images):
    model = first_layer()
    nb.initializers.whitening(model[0], images)
    before = model.params["0.conv2d.weight"].value.copy()
    nb.initializers.lsuv(model[1:], model[:1].predict(images))
    assert np.array_equal(model.params["0.conv2d.weight"].value, before)
    assert abs(model.predict(images).var() - 1) <= 0.1


def test_lsuv_with_a_tolerance(images):
    """A bias makes several tries necessary."""
    model = first_layer(bias_initializer=initializers.normal(0.5))
    nb.initializers.lsuv(model, images, tolerance=1e-6)
    assert abs(model[0].forward(images)[0].var() - 1) <= 1e-6


def test_lsuv_changes_nothing_on_an_error(images):
    """Not even the layers before the one that failed, nor a forward of the user's."""
    model = deep_model()
    model[3].params["weight"].value[:] = 1
    model[3].forward = lambda x, train=False: (np.zeros((len(x), 12, 10, 8)), None)
    own = model[3].forward
    before = {name: array.copy() for name, array in model.state().items()}
    wrong = {
        "rows that are alike": (np.zeros_like(images), NonFiniteError, r"outputs of layer 0\.conv2d have variance 0\.0: expected x with"),
        "of a later layer": (images, NonFiniteError, r"outputs of layer 3\.convtranspose2d have variance 0\.0"),
        "NaN": (images * np.nan, NonFiniteError, r"outputs of layer 0\.conv2d have variance nan"),
        "shape": (images[:, :3], ShapeError, "of shape"),
        "dtype": (images.astype(int), DTypeError, "of dtype"),
    }
    for x, error, words in wrong.values():
        with pytest.raises(error, match=words):
            nb.initializers.lsuv(model, x)
    with pytest.raises(ArgumentError, match=r"^tolerance=0: expected a finite number above 0$"):
        nb.initializers.lsuv(model, images, 0)
    assert all(np.array_equal(array, before[name]) for name, array in model.state().items())
    assert model[3].forward is own
    assert "forward" not in vars(model[0])


def test_passing_filters_pass_their_channel_on(rng):
    model = nb.Sequential([nb.Conv2D(5, 3, use_bias=False, weight_initializer=initializers.passing())])
    model.build((4, 6, 3), backend="numpy")
    x = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
    y = model.predict(x)
    assert np.array_equal(y[..., :3], x)
    assert abs(y[..., 3:]).max() > 0.01
    narrow = initializers.passing("ones")(initializers.generator(0, 0), (1, 2, 4, 2))
    assert np.array_equal(narrow[0, 1], np.eye(4, 2))
    assert not narrow[0, 0].any()
    assert repr(initializers.passing("ones")) == "nb.initializers.passing('ones')"
