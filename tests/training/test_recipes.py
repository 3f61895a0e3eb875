"""Recipes: what they set and freeze, that they resume, and that bad input changes nothing. And the mean over views."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet import recipes
from nbnet.errors import ArgumentError, BuildError, DTypeError, NbnetError, ShapeError

ROWS, CLASSES = 40, 3
FROZEN = "standardize", "whiten.weight"


@pytest.fixture(scope="module")
def data():
    rng = np.random.Generator(np.random.Philox(4))
    y = np.arange(ROWS) % CLASSES
    x = rng.integers(0, 120, (ROWS, 25, 25, 3), np.uint8)
    x[np.arange(ROWS), :, :, y] += 100  # the class is a colour
    return x, y


def build(backend="serial"):
    model = nb.models.airbench(CLASSES, widths=(4, 8, 8))
    model.build((25, 25, 3), backend=backend, seed=1)
    return model


def state_of(model):
    return {name: array.tobytes() for name, array in model.state().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_airbench_learns_and_keeps_what_is_frozen(data, optimizer):
    model = build()
    trainer = recipes.airbench(model, data[0], batch_size=64, optimizer=optimizer)  # the learning rate of larger batches: few steps
    before = state_of(model)
    history = trainer.fit(data, 16, 8)
    assert history["accuracy"][-1] > 0.8 > 0.6 > history["accuracy"][0]
    same = {name for name, bits in state_of(model).items() if bits == before[name]}
    assert same == {name for name in before if name.startswith(FROZEN)}


def test_the_statistics_of_airbench(data):
    model = build()
    recipes.airbench(model, data[0])
    pixels = data[0] / 255
    mean, variance = (model["standardize"].buffers[name] for name in ("moving_mean", "moving_var"))
    assert_close(mean, pixels.mean(axis=(0, 1, 2)), "reduction", np.float32)
    assert_close(variance, pixels.var(axis=(0, 1, 2)), "reduction", np.float32)
    standard = (pixels - pixels.mean(axis=(0, 1, 2))) / pixels.std(axis=(0, 1, 2))
    patches = np.lib.stride_tricks.sliding_window_view(standard, (2, 2), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)
    outputs = patches @ model["whiten"].params["weight"].value.reshape(12, 24)[:, :12]
    moments = outputs.T @ outputs / len(outputs)
    assert abs(moments - np.diag(np.diag(moments))).max() < 1e-3
    assert 0.99 < np.diag(moments).min() <= np.diag(moments).max() < 1.01


def test_the_statistics_are_of_all_classes():
    """Images of a folder are in the order of their classes."""
    images = np.repeat(np.arange(3, dtype=np.uint8) * 100, 2000)[:, None, None, None] + np.zeros((1, 25, 25, 3), np.uint8)
    images[:, 0, 0] += 20
    model = build()
    recipes.airbench(model, images)
    assert abs(model["standardize"].buffers["moving_mean"] - 100 / 255).max() < 0.01


def test_a_head_with_small_weights_learns_as_logits_that_are_divided():
    """The recipe's head has weights times h and lr times h squared, where the paper multiplies logits by h."""
    x, y = np.random.Generator(np.random.Philox(5)).normal(size=(12, 5)), np.arange(12) % 3
    head = recipes.OPTIMIZERS["sgd"](256)
    h, options = recipes.HEAD, head.groups["head"]

    def divided(prediction, target, *, sample_weight=None, rows=None, backend):
        result = nb.losses.softmax_cross_entropy(prediction * h, target, rows=rows, backend=backend)
        return result._replace(gradient=result.gradient * h)

    def model():
        made = nb.Sequential([nb.Dense(3, use_bias=False).named("head")])
        made.build((5,), backend="numpy", dtype="float64", seed=2)
        return made

    common = {"momentum": head.momentum, "nesterov": True, "weight_decay": head.weight_decay}
    paper, ours = model(), model()
    ours["head"].params["weight"].value[:] *= h
    one = nb.Trainer(paper, divided, nb.SGD(head.lr, **common))
    other = nb.Trainer(ours, optimizer=nb.SGD(head.lr, **common, groups={"head": options}))
    for _ in range(5):
        one.train_batch(x, y)
        other.train_batch(x, y)
    assert_close(ours.predict(x), paper.predict(x) * h, "training")


@pytest.mark.parametrize("backend", ["serial", "parallel", "numpy"])
def test_airbench_resumes_within_an_epoch(data, backend, tmp_path):
    class Stop(nb.callbacks.Callback):
        def on_batch_end(self, trainer):
            if trainer.step == 7:
                trainer.save(tmp_path / "run")

    whole = recipes.airbench(build(backend), data[0], batch_size=8, optimizer="muon")
    whole.fit(data, 3, 8, callbacks=[Stop()])
    resumed = recipes.airbench(build(backend), data[0], batch_size=8, optimizer="muon")
    resumed.restore(tmp_path / "run")
    resumed.fit(data, 3, 8)
    assert state_of(resumed.model) == state_of(whole.model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model, x: (nb.models.airbench(CLASSES), x, {}), "not built yet: call model.build"),
        (lambda model, x: (model, x, {"optimizer": "adam"}), "unknown optimizer 'adam'.*sgd"),
        (lambda model, x: (model, x, {"batch_size": 0}), "batch_size=0"),
        (lambda model, x: (model, x.astype(np.int32), {}), "images have dtype int32, expected uint8, float32 or float64"),
        (lambda model, x: (model, x[:, :20], {}), r"images have shape \(40, 20, 25, 3\), expected \(N, 25, 25, 3\)"),
        (lambda model, x: (model, x.reshape(40, -1), {}), r"images have shape \(40, 1875\), expected \(N, 25, 25, 3\)"),
        (lambda model, x: (model, x, {"seed": -1}), "seed=-1"),
        (lambda model, x: (model[1:], x, {}), "has no layer 'standardize': expected nb.models.airbench"),
    ],
)
def test_bad_input_changes_nothing(data, change, words):
    model = build()
    before = state_of(model), {name: param.trainable for name, param in model.params.items()}
    model_of_call, images, options = change(model, data[0])
    with pytest.raises(NbnetError, match=words) as error:
        recipes.airbench(model_of_call, images, **options)
    assert isinstance(error.value, (ArgumentError, BuildError, DTypeError, ShapeError))
    assert "\n" not in str(error.value)
    assert (state_of(model), {name: param.trainable for name, param in model.params.items()}) == before


# ------------------------------------------------------------------------------------------------------ views


def test_views_by_hand(data):
    model, x = build("numpy"), data[0][:5] / np.float32(255)
    flipped = x[:, :, ::-1]
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    left, right = padded[:, :25, :25], padded[:, 4:, 4:]
    plain = [model.predict(np.ascontiguousarray(view)) for view in (x, left, right)]
    both = [(y + model.predict(np.ascontiguousarray(view[:, :, ::-1]))) / 2 for y, view in zip(plain, (x, left, right))]
    assert_close(nb.predict_views(model, x, shift=2), both[0] / 2 + (both[1] + both[2]) / 4, "reduction", np.float32)
    assert_close(nb.predict_views(model, x, flip=False, shift=2), plain[0] / 2 + (plain[1] + plain[2]) / 4, "reduction", np.float32)
    assert_close(
        nb.predict_views(model, x, shift=0), (plain[0] + model.predict(np.ascontiguousarray(flipped))) / 2, "reduction", np.float32
    )
    assert np.array_equal(nb.predict_views(model, x, flip=False, shift=0), plain[0])
    assert_close(nb.predict_views(model, data[0][:5], shift=2), nb.predict_views(model, x, shift=2), "reduction", np.float32)


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.zeros((2, 25, 25), np.uint8), {}, r"x has shape \(2, 25, 25\), expected images \(N, H, W, C\)"),
        (np.zeros((2, 25, 25, 3), np.uint8), {"shift": 25}, "shift=25 and images of 25x25 pixels: expected a shift below their size"),
        (np.zeros((2, 25, 25, 3), np.uint8), {"shift": -1}, "shift=-1"),
    ],
)
def test_views_of_bad_input(x, options, words):
    with pytest.raises(NbnetError, match=words):
        nb.predict_views(build("numpy"), x, **options)
