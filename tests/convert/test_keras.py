"""Models of Keras beside models with the same layers: both ways, and what is refused. Runs where Keras is installed."""

import os
import warnings

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from convert.twins import built, everything
from nbnet.errors import ArgumentError, ShapeError

pytest.importorskip("h5py")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of its imports
    keras = pytest.importorskip("keras", reason="keras is a yardstick, not a dependency")
L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")  # those of Keras and TensorFlow


def stack(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def block():
    """A residual block, a concatenation and two outputs."""
    x = keras.Input((6, 4, 3))
    body = L.BatchNormalization()(L.Conv2D(5, 3, padding="same", name="first")(x))
    body = L.Conv2D(5, 3, padding="same", name="second")(L.ReLU()(body))
    y = L.Add()([body, L.Conv2D(5, 1, name="shortcut")(x)])
    y = L.Concatenate()([y, L.Conv2D(2, 1, name="side")(y)])
    return keras.Model(x, [L.Conv2D(2, 1, name="image")(y), L.Dense(3, name="head")(L.Flatten()(y))])


def our_block():
    body = [nb.Conv2D(5, 3).named("first"), nb.BatchNorm.preset("keras"), nb.ReLU(), nb.Conv2D(5, 3).named("second")]
    shortcut = [nb.Conv2D(5, 1).named("shortcut")]
    heads = [nb.Conv2D(2, 1).named("image"), [nb.Flatten(), nb.Dense(3).named("head")]]
    return [nb.Residual(body, shortcut), nb.Concat([nb.Identity(), nb.Conv2D(2, 1).named("side")]), nb.Parallel(heads)]


NAMES = {
    "first": "0.residual.body.first",
    "second": "0.residual.body.second",
    "shortcut": "0.residual.shortcut.shortcut",
    "side": "1.concat.side",
    "image": "2.parallel.image",
    "head": "2.parallel.1.sequential.head",
}
# name: (the model of Keras, layers, input shape)
TWINS = {
    "conv2d": (
        lambda: stack((7, 8, 4), L.Conv2D(6, (3, 2), strides=2, padding="same", groups=2, use_bias=False)),
        lambda: [nb.Conv2D(6, (3, 2), stride=2, groups=2, use_bias=False)],
        (7, 8, 4),
    ),
    "conv1d": (lambda: stack((9, 4), L.Conv1D(6, 3, padding="causal")), lambda: [nb.Conv1D(6, 3, padding="causal")], (9, 4)),
    "depthwise": (
        lambda: stack((5, 4, 4), L.DepthwiseConv2D(3, depth_multiplier=3)),
        lambda: [nb.DepthwiseConv2D(3, padding="valid", multiplier=3)],
        (5, 4, 4),
    ),
    "separable": (
        lambda: stack((5, 4, 4), L.SeparableConv2D(5, 3, depth_multiplier=2), L.SeparableConv2D(3, 2, use_bias=False)),
        lambda: [nb.SeparableConv2D(5, 3, padding="valid", multiplier=2), nb.SeparableConv2D(3, 2, padding="valid", use_bias=False)],
        (5, 4, 4),
    ),
    "transpose 2d": (
        lambda: stack((4, 5, 4), L.Conv2DTranspose(6, (3, 2), strides=2, padding="same")),
        lambda: [nb.ConvTranspose2D(6, (3, 2), stride=2)],
        (4, 5, 4),
    ),
    "transpose 1d": (
        lambda: stack((5, 4), L.Conv1DTranspose(6, 3, strides=2)),
        lambda: [nb.ConvTranspose1D(6, 3, 2, padding="valid")],
        (5, 4),
    ),
    "batch norms": (
        lambda: stack(
            (3, 2, 4),
            L.BatchNormalization(),
            L.BatchNormalization(momentum=0.5, epsilon=1e-5, scale=False),
            L.BatchNormalization(center=False),
            L.BatchNormalization(center=False, scale=False),
        ),
        lambda: [
            nb.BatchNorm.preset("keras"),
            nb.BatchNorm(0.5, scale=False),
            nb.BatchNorm.preset("keras", center=False),
            nb.BatchNorm.preset("keras", center=False, scale=False),
        ],
        (3, 2, 4),
    ),
    "norms": (
        lambda: stack(
            (3, 2, 4),
            L.GroupNormalization(2),
            L.GroupNormalization(-1),
            L.LayerNormalization(),
            L.LayerNormalization(axis=(1, 2, 3), center=False),
            L.RMSNormalization(),
        ),
        lambda: [
            nb.GroupNorm(2, 1e-3),
            nb.InstanceNorm(1e-3),
            nb.LayerNorm(1e-3),
            nb.LayerNorm(1e-3, axes=(-3, -2, -1), center=False),
            nb.RMSNorm(1e-6),
        ],
        (3, 2, 4),
    ),
    "prelu": (
        lambda: stack((3, 2, 4), L.PReLU(shared_axes=[1, 2]), L.PReLU(shared_axes=[1, 2, 3]), L.Flatten(), L.PReLU()),
        lambda: [nb.PReLU(per_channel=True), nb.PReLU(), nb.Flatten(), nb.PReLU(per_channel=True)],
        (3, 2, 4),
    ),
    "models in a model": (
        lambda: stack(
            (6, 5, 2),
            L.Conv2D(3, 3),
            keras.Sequential([L.Conv2D(3, 1), L.BatchNormalization(), keras.Sequential([L.Conv2D(3, 1), L.Dropout(0.5)])]),
            L.Conv2D(3, 1),
            L.Flatten(),
            L.Dense(4),
        ),
        lambda: [
            nb.Conv2D(3, 3, padding="valid"),
            nb.Sequential([nb.Conv2D(3, 1), nb.BatchNorm.preset("keras"), nb.Sequential([nb.Conv2D(3, 1), nb.Dropout(0.5, seed=3)])]),
            nb.Conv2D(3, 1),
            nb.Flatten(),
            nb.Dense(4),
        ],
        (6, 5, 2),
    ),
    "twelve of a kind": (lambda: stack((3,), *[L.Dense(3) for _ in range(12)]), lambda: [nb.Dense(3) for _ in range(12)], (3,)),
}


def randomised(model, seed=0):
    rng = np.random.default_rng(seed)
    values = [(v, rng.standard_normal(v.shape)) for v in model.weights]
    for variable, value in values:
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def check(model, theirs, x):
    wanted = theirs(x, training=False)
    y = model.predict(x)
    for mine, other in zip(*((a if isinstance(a, (list, tuple)) else [a]) for a in (y, wanted))):
        assert_close(mine, np.asarray(other), "golden")


@pytest.mark.parametrize("name", TWINS)
def test_both_ways(rng, tmp_path, name):
    make, layers, shape = TWINS[name]
    theirs, model = randomised(make()), built(layers(), shape)
    nb.convert.from_keras(theirs, model)
    check(model, theirs, rng.standard_normal((2, *shape), dtype=np.float32))
    theirs.save(tmp_path / "m.keras")
    theirs.save(tmp_path / "m.h5")
    theirs.save_weights(tmp_path / "m.weights.h5")
    for ending in ("keras", "h5", "weights.h5"):
        twin = built(layers(), shape, seed=2)
        if (name, ending) == ("models in a model", "weights.h5"):
            with pytest.raises(
                ArgumentError, match=r"the order of the Conv2D layers is not in .* expected the \.keras file, or names= for"
            ):
                nb.convert.from_keras(tmp_path / "m.weights.h5", twin)
            continue
        nb.convert.from_keras(tmp_path / f"m.{ending}", twin)
        assert everything(twin) == everything(model), ending
    other = randomised(make(), seed=1)
    nb.convert.to_keras(model, other)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), theirs.get_weights()))


def test_branches_by_name(rng, tmp_path):
    theirs, model = randomised(block()), built(our_block(), (6, 4, 3))
    norm = next(layer.name for layer in theirs.layers if "norm" in layer.name)
    names = NAMES | {norm: "0.residual.body.1.batchnorm"}
    assert nb.convert.from_keras(theirs, model, names=names) == names
    check(model, theirs, rng.standard_normal((2, 6, 4, 3), dtype=np.float32))
    for ending in ("keras", "h5"):
        theirs.save(tmp_path / f"m.{ending}")
        twin = built(our_block(), (6, 4, 3))
        nb.convert.from_keras(tmp_path / f"m.{ending}", twin, names=names)
        assert everything(twin) == everything(model)
    other = randomised(block(), seed=1)
    new = next(layer.name for layer in other.layers if "norm" in layer.name)
    nb.convert.to_keras(model, other, names=NAMES | {new: names[norm]})
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), theirs.get_weights()))


def test_a_trained_network_there_and_back(rng, tmp_path):
    def network():
        keras.utils.set_random_seed(0)
        layers = [
            L.Conv2D(8, 3, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.MaxPooling2D(2),
            L.Flatten(),
            L.Dense(3),
        ]
        return stack((8, 6, 1), *layers)

    theirs, x = network(), rng.standard_normal((32, 8, 6, 1), dtype=np.float32)
    theirs.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    theirs.fit(x, rng.integers(0, 3, 32), epochs=3, verbose=0)
    norm = nb.BatchNorm.preset("keras")
    layers = [nb.Conv2D(8, 3, use_bias=False), norm, nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dense(3)]
    model = built(layers, (8, 6, 1))
    nb.convert.from_keras(theirs, model)
    assert np.abs(model.predict(x) - np.asarray(theirs(x, training=False))).max() <= 1e-5
    theirs.save(tmp_path / "m.keras")  # with an optimizer
    before = everything(model)
    nb.convert.from_keras(tmp_path / "m.keras", model)
    assert everything(model) == before
    other = network()
    nb.convert.to_keras(model, other)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), theirs.get_weights()))


def test_nothing_changes_on_an_error():
    theirs = randomised(stack((4,), L.Dense(3, activation="tanh"), L.BatchNormalization()))
    model = built([nb.Dense(3), nb.BatchNorm.preset("keras")], (4,))
    before, weights = everything(model), theirs.get_weights()
    for other, error, kind in (
        (model, "outputs of both models differ by", ArgumentError),
        (built([nb.Dense(3, activation="tanh"), nb.BatchNorm()], (4,)), r"has eps=0\.001, layer 1\.batchnorm eps=1e-05", ArgumentError),
        (
            built([nb.Dense(3, activation="tanh"), nb.BatchNorm(0.9, 1e-3)], (4,)),
            r"has decay=0\.99, layer 1\.batchnorm decay=0\.9",
            ArgumentError,
        ),
        (built([nb.Dense(3), nb.BatchNorm.preset("keras")], (5,)), r"expects Dense with kernel \(5, 3\), bias \(3,\)", ShapeError),
        (
            built([nb.Dense(3, use_bias=False), nb.BatchNorm.preset("keras")], (4,)),
            r"expects Dense with kernel \(4, 3\):|differ",
            ArgumentError,
        ),
        (built([nb.Dense(3), nb.Dense(3)], (4,)), r"BatchNormalization, gamma .* does not fit layer 1\.dense", ArgumentError),
        (built([nb.Dense(3)], (4,)), "no partner for 'batch_norm", ArgumentError),
    ):
        own = everything(other)
        for convert in (lambda other=other: nb.convert.from_keras(theirs, other), lambda other=other: nb.convert.to_keras(other, theirs)):
            with pytest.raises(kind, match=error):
                convert()
            assert everything(other) == own
            assert all(np.array_equal(a, b) for a, b in zip(theirs.get_weights(), weights))
    assert everything(model) == before
    for wrong in (3, [1], None):
        with pytest.raises(ArgumentError, match=r"expected a keras\.Model"):
            nb.convert.from_keras(wrong, model)
        with pytest.raises(ArgumentError, match=r"expected a keras\.Model"):
            nb.convert.to_keras(model, wrong)


class Twice(keras.layers.Layer):
    """A layer of layers, whose weights have the same names."""

    def __init__(self):
        super().__init__()
        self.a, self.b = L.Dense(4), L.Dense(4)

    def build(self, shape):
        self.a.build(shape)
        self.b.build(shape)

    def call(self, x):
        return self.b(self.a(x))


def test_layers_of_ones_own_and_other_layouts():
    model = built([nb.Dense(4)], (4,))
    before = everything(model)
    with pytest.raises(ArgumentError, match=r"'twice.*twice.*/dense.*/kernel \(4, 4\).* does not fit layer 0\.dense"):
        nb.convert.from_keras(stack((4,), Twice()), model)
    assert everything(model) == before
    first = built([nb.Conv2D(2, 3)], (4, 4, 4))
    with pytest.raises(ArgumentError, match=r"has data_format='channels_first', expected channels_last"):
        nb.convert.from_keras(stack((4, 4, 4), L.Conv2D(2, 3, padding="same", data_format="channels_first")), first)
