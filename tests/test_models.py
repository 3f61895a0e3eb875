"""The ready-made networks: their layers, their sizes, and that they train."""

import numpy as np
import pytest

import nbnet as nb
from nbnet import models
from nbnet.datasets import digits
from nbnet.errors import ArgumentError, ShapeError


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


def filters(model):
    return [layer.filters for layer in model.layers if isinstance(layer, nb.Conv2D)]


def test_digits_is_the_benchmark_network():
    model = models.digits(10)
    block = ["Conv2D", "BatchNorm", "ReLU", "MaxPool2D"]
    assert kinds(model.layers) == [*block, *block, "Flatten", "Dropout", "Dense"]
    assert filters(model) == [16, 32]
    assert model.layers[9].rate == 0.25
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, nb.Conv2D))


def test_five_conv_is_the_tutorials_network():
    model = models.five_conv(7)
    assert filters(model) == [64, 64, 32, 16, 7]
    block, pooled = ["Conv2D", "BatchNorm", "ReLU"], ["Conv2D", "BatchNorm", "ReLU", "MaxPool2D"]
    assert kinds(model.layers) == [*pooled, *pooled, *pooled, *block, *block, "GlobalAvgPool2D"]
    model.build((32, 32, 3), backend="numpy")
    assert model.layers[-2].output_shape == (4, 4, 7)


def test_lenet_and_resnet9():
    assert filters(models.lenet(10)) == [32, 64]
    resnet = models.resnet9(10)
    bodies = [layer.body.layers for layer in resnet.layers if isinstance(layer, nb.Residual)]
    assert [filters(resnet), [body[0].filters for body in bodies]] == [[16, 32, 64, 128], [32, 128]]
    assert filters(models.resnet9(10, width=4)) == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("digits", (8, 8, 1), 6_138),
        ("lenet", (28, 28, 1), 421_738),
        ("five-conv", (32, 32, 3), 63_444),
        ("resnet9", (32, 32, 3), 412_954),
        ("se-resnet", (32, 32, 3), 80_870),
        ("mobile", (32, 32, 3), 37_162),
        ("airbench", (32, 32, 3), 1_971_640),
    ],
)
def test_sizes(name, shape, parameters):
    model = models.get(name)(10)
    assert model.input_shape is None
    assert model.build(shape, backend="numpy") == (10,)
    assert sum(param.value.size for param in model.params.values()) == parameters


@pytest.mark.parametrize(
    ("model", "shape", "output_shape", "parameters"),
    [
        (lambda: models.keyword(10), (98, 40), (10,), 29_898),
        (models.autoencoder, (28, 28, 1), (28, 28, 1), 12_217),
        (models.unet_small, (32, 32, 3), (32, 32, 1), 14_785),
        (models.siamese, ((28, 28, 1), (28, 28, 1)), (2,), 55_122),
    ],
)
def test_sizes_of_models_that_are_no_classifiers_of_images(model, shape, output_shape, parameters):
    made = model()
    assert made.build(shape, backend="numpy") == output_shape
    assert sum(param.value.size for param in made.params.values()) == parameters


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_trains(name, rng):
    """A few steps on one batch whose classes are plain to see."""
    model, side = models.get(name)(3), 25 if name == "airbench" else 8
    model.build((side, side, 3), backend="serial")
    y = np.arange(24) % 3
    x = rng.integers(0, 100, (24, side, side, 3), dtype=np.uint8)
    x[np.arange(24), :, :, y] += 120
    trainer = nb.Trainer(model, optimizer=nb.Adam(0.01))
    losses = [trainer.train_batch(x, y)["loss"] for _ in range(30)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", models.MODELS)
def test_models_are_new_each_time(name):
    first, second = models.get(name)(3), models.get(name)(3)
    assert not {id(layer) for layer in first.layers} & {id(layer) for layer in second.layers}


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((8, 8, 1), "digits"),
        ((12, 12, 3), "digits"),
        ((28, 28, 1), "lenet"),
        ((32, 32, 1), "lenet"),
        ((28, 28, 3), "resnet9"),
        ((32, 32, 3), "resnet9"),
        ((200, 200, 1), "resnet9"),
    ],
)
def test_auto(shape, name):
    assert models.choose("auto", shape) == name
    assert models.choose("resnet9", shape) == "resnet9"
    model = models.get(name)(2)
    assert model.build(shape, backend="numpy") == (2,)


def test_unknown_names():
    with pytest.raises(ArgumentError, match=r"unknown model 'five_conv': did you mean 'five-conv'\? choose one of digits, lenet"):
        models.get("five_conv")
    with pytest.raises(ArgumentError, match=r"unknown model 'atuo': did you mean 'auto'\?"):
        models.choose("atuo", (8, 8, 1))


def test_an_image_that_is_too_small():
    with pytest.raises(ShapeError, match=r"layer 11.maxpool2d does not fit layer 10.relu, which gives \(1, 1, 32\)"):
        models.five_conv(10).build((4, 4, 3), backend="numpy")


# ------------------------------------------------------------------------------------------------------ on scanned digits


def fitted(model, shape, x, y, factor, loss="softmax_cross_entropy", epochs=5):
    """The history of a model whose loss fell by this factor at least."""
    model.build(shape, backend="parallel", seed=1)
    trainer = nb.Trainer(model, loss, optimizer=nb.Adam(3e-3))
    history = trainer.fit((x, y), epochs=epochs, batch_size=50, progress=False)
    assert history["loss"][-1] < history["loss"][0] / factor
    return trainer


def test_a_siamese_network_tells_pairs_of_digits_apart():
    """Pairs of scanned digits, half of them of one class: the loss falls to less than half, and new pairs are told apart."""
    (x, y), (x_test, y_test), _ = digits.read()

    def pairs(x, y, count, seed):
        rng = np.random.default_rng(seed)
        first = rng.integers(0, len(x), count)
        same = [rng.choice(np.flatnonzero(y == y[i])) for i in first]
        second = np.where(np.arange(count) % 2 == 0, rng.integers(0, len(x), count), same)
        return (x[first], x[second]), (y[first] == y[second]).astype(np.int64)

    trainer = fitted(models.siamese(), ((8, 8, 1), (8, 8, 1)), *pairs(x, y, 2000, 0), 2, epochs=6)
    assert trainer.evaluate(*pairs(x_test, y_test, 400, 1))["accuracy"] > 0.85


def test_a_network_with_gates_learns_digits():
    (x, y), test, _ = digits.read()
    assert fitted(models.se_resnet(10, width=8), (8, 8, 1), x, y, 4).evaluate(*test)["accuracy"] > 0.9


def test_a_mobile_network_learns_digits():
    (x, y), test, _ = digits.read()
    assert fitted(models.mobile(), (8, 8, 1), x, y, 4).evaluate(*test)["accuracy"] > 0.9


def test_a_keyword_network_learns_digits_row_by_row():
    (x, y), (x_test, y_test), _ = digits.read()
    trainer = fitted(models.keyword(10, width=16), (8, 8), x[..., 0], y, 4)
    assert trainer.evaluate(x_test[..., 0], y_test)["accuracy"] > 0.9


def test_an_autoencoder_repeats_digits():
    (x, _), (x_test, _), _ = digits.read()
    trainer = fitted(models.autoencoder(), (8, 8, 1), x, (x / 255).astype("float32"), 3, "mean_squared_error", 8)
    code = trainer.model.trunk(until="code").predict(x_test)
    assert code.shape == (len(x_test), 2, 2, 8)
    errors = (trainer.model.predict(x_test) - x_test / 255) ** 2
    assert errors.mean() < np.var(x_test / 255) / 3


def test_a_small_unet_takes_noise_away(rng):
    (x, _), (x_test, _), _ = digits.read()
    clean, clean_test = ((images / 255).astype("float32") for images in (x, x_test))
    noisy, noisy_test = (images + rng.normal(0, 0.3, images.shape).astype("float32") for images in (clean, clean_test))
    trainer = fitted(models.unet_small(), (8, 8, 1), noisy, clean, 2, "mean_squared_error", 8)
    error = ((trainer.model.predict(noisy_test) - clean_test) ** 2).mean()
    assert error < ((noisy_test - clean_test) ** 2).mean() / 3
