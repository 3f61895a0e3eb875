"""Arguments that do not fit: a clear line of error, and nothing has changed."""

import re

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, BuildError, DataError, DTypeError, ShapeError


def test_a_build_that_fails_changes_nothing(rng):
    x = rng.standard_normal((4, 5), dtype=np.float32)
    model = nb.Sequential([nb.Dense(6), nb.Residual([nb.Dense(6)]), nb.Dense(2)])
    with pytest.raises(ShapeError):
        model.build((4, 4, 1), backend="serial")
    with pytest.raises(BuildError, match="not built yet"):
        model.predict(x)
    model.build((5,), backend="serial")
    wanted, state = model.predict(x), model.state()
    with pytest.raises(ShapeError):
        model.build((4, 4, 1), backend="numpy", dtype="float64", rebuild=True)
    with pytest.raises(BuildError):
        model.build((4, 4, 1), backend="numpy", dtype="float64")
    assert model.predict(x).tobytes() == wanted.tobytes()
    assert all(state[name] is array for name, array in model.state().items())
    assert model.backend.name == "serial"


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True, "8"])
def test_batch_sizes_are_whole_numbers(batch_size, rng):
    x, y = rng.standard_normal((6, 5), dtype=np.float32), np.arange(6) % 2
    model = nb.Sequential([nb.Dense(2), nb.BatchNorm()])
    model.build((5,), backend="serial")
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    calls = (
        lambda: model.predict(x, batch_size),
        lambda: trainer.evaluate(x, y, batch_size),
        lambda: trainer.fit((x, y), 1, batch_size),
        lambda: nb.recalibrate(model, x, batch_size),
    )
    for call in calls:
        with pytest.raises(ArgumentError, match=re.escape(f"batch_size={batch_size!r}: expected a whole number, at least 1")):
            call()


def test_numbers_of_numpy_are_numbers(rng):
    x = rng.standard_normal((2, 6, 6, 2))
    for padding in (1, np.int64(1), np.uint8(1)):
        y, _ = nb.functional.max_pool2d_forward(x, np.int32(3), padding=padding, backend="serial")
        assert y.shape == (2, 2, 2, 2)
        with pytest.raises(ArgumentError, match="some windows would hold no pixel"):
            nb.functional.max_pool2d_forward(x, 2, padding=type(padding)(2), backend="serial")
    assert nb.Dense(np.int64(3)).units == nb.Conv2D(np.int64(3), 3).filters == 3
    assert nb.BatchNorm(zero_debias=np.True_).moving.zero_debias is True
    for wrong in (lambda: nb.Dense(True), lambda: nb.Dropout(0.5, seed=1.5), lambda: nb.functional.dropout_forward(x, 0.5, seed=1.5)):
        with pytest.raises(ArgumentError, match="expected a whole number"):
            wrong()


def test_a_dropout_that_fails_counts_no_step(rng):
    layer = nb.Dropout(0.5, noise_shape=(2, None))
    layer.build((3,), backend="serial")
    with pytest.raises(ShapeError, match="noise_shape"):
        layer.forward(rng.standard_normal((3, 3), dtype=np.float32), train=True)
    assert layer.buffers["step"][0] == 0


def test_cotangents_have_the_shape_of_what_forward_gave(rng):
    x = rng.standard_normal((2, 4, 4, 3))
    _, saved = nb.functional.conv2d_forward(x, rng.standard_normal((3, 3, 3, 2)), backend="serial")
    _, dropped = nb.functional.dropout_forward(x, 0.5, seed=0, backend="serial")
    for backward, of, shape in ((nb.functional.conv2d_backward, saved, (2, 9, 9, 2)), (nb.functional.dropout_backward, dropped, (7, 2))):
        with pytest.raises(ShapeError, match="dy has shape"):
            backward(np.ones(shape), of)
        with pytest.raises(DTypeError, match="dy has dtype float32"):
            backward(np.ones((2, 4, 4, 3), np.float32), of)


@pytest.mark.parametrize("loss", ["mean_squared_error", "sum_squared_error"])
def test_targets_of_the_validation_are_checked_before_training(loss, rng):
    model = nb.Sequential([nb.Dense(2)])
    model.build((3,), backend="serial")
    trainer = nb.Trainer(model, loss=loss, optimizer=nb.SGD(0.1))
    x, y = rng.standard_normal((8, 3), dtype=np.float32), rng.standard_normal((8, 2), dtype=np.float32)
    for wrong in (y[:, :1], y[:, 0], np.ones((8, 1, 2))):
        with pytest.raises(ShapeError, match=r"validation: targets have shape .*, expected \(8, 2\)"):
            trainer.fit((x, y), epochs=1, validation=(x, wrong))
    assert trainer.step == 0


# ------------------------------------------------------------------------------------------ arrays of nearly the right shape


def _of_images():
    model = nb.Sequential([nb.Flatten(), nb.Dense(3)])
    model.build((8, 6, 1), backend="numpy")
    return model


@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        ((8, 6, 1), "; one row alone is x[None]"),
        ((5, 8, 6), "; for images of one channel use x[..., None]"),
        ((5, 1, 8, 6), "; channels come last here: x.transpose(0, 2, 3, 1)"),
        ((5, 7, 6, 1), ""),
    ],
)
def test_what_to_do_with_images_of_another_shape(shape, fix):
    model, x = _of_images(), np.zeros(shape, np.float32)
    trainer = nb.Trainer(model, optimizer=nb.SGD(0.1))
    calls = [lambda: model.predict(x), lambda: model.forward(x), lambda: trainer.evaluate(x, np.zeros(shape[0], int))]
    for call in calls:
        with pytest.raises(ShapeError) as caught:
            call()
        assert "(N, 8, 6, 1)" in str(caught.value)
        assert str(caught.value).endswith(fix or ("(N, 8, 6, 1)", "at least 1"))


def test_predictions_of_the_other_float():
    model, x = _of_images(), np.random.default_rng(0).random((300, 8, 6, 1))
    assert model.predict(x).dtype == np.float32
    assert np.array_equal(model.predict(x), model.predict(x.astype(np.float32)))


def test_errors_of_data_say_which():
    model, x = _of_images(), np.zeros((4, 8, 6, 1), np.float32)
    trainer, good = nb.Trainer(model, optimizer=nb.SGD(0.1)), np.array([0, 1, 2, 0])
    before = {name: array.copy() for name, array in model.state().items()}
    with pytest.raises(
        DataError, match=r"^validation: label 3 of row 2 is not a class: expected 0 to 2, .*; for labels from 1 use np.asarray\(y\) - 1$"
    ):
        trainer.fit((x, good), 1, validation=(x, good + 1), progress=False)
    assert trainer.step == 0
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())


@pytest.mark.parametrize("eps", [-50.0, float("nan"), "small"])
def test_eps_of_the_batch_norm_call(eps):
    with pytest.raises(ArgumentError, match="expected a number that is at least 0"):
        nb.functional.batch_norm_forward(np.ones((4, 3)), None, None, eps=eps, backend="numpy")


# ------------------------------------------------------------------------------------------------------------------- seeds


def _seed_of_a_trainer(seed):
    model = nb.Sequential([nb.Dense(1)])
    model.build((1,), backend="numpy")
    return nb.Trainer(model, optimizer=nb.SGD(0.1), seed=seed)


SEEDS = {  # what takes a seed: its bits
    "build": (lambda seed: nb.Dense(1).build((1,), backend="numpy", seed=seed), 64),
    "Dropout": (lambda seed: nb.Sequential([nb.Dropout(0.5, seed=seed)]).build((1,), backend="numpy"), 64),
    "dropout_forward": (lambda seed: nb.functional.dropout_forward(np.ones(3), 0.5, seed=seed, backend="numpy"), 64),
    "step of dropout_forward": (lambda step: nb.functional.dropout_forward(np.ones(3), 0.5, seed=0, step=step, backend="numpy"), 32),
    "stream of dropout_forward": (lambda each: nb.functional.dropout_forward(np.ones(3), 0.5, seed=0, stream=each, backend="numpy"), 32),
    "Trainer": (_seed_of_a_trainer, 64),
    "gradcheck": (lambda seed: nb.gradcheck(nb.Dense(1), np.ones((2, 1)), seed=seed), 64),
    "permutation": (lambda seed: nb.preprocessing.permutation(3, seed), 64),
    "epoch of permutation": (lambda epoch: nb.preprocessing.permutation(3, 0, epoch), 64),
    "stratified_split": (lambda seed: nb.preprocessing.stratified_split(np.arange(4) % 2, 0.5, seed), 64),
    "dropout of cs231n": (lambda seed: nb.cs231n.dropout_forward(np.ones(3), {"p": 0.5, "mode": "train", "seed": seed}), 64),
}


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_at_their_limits(name):
    call, bits = SEEDS[name]
    for seed in (0, 1, 2**bits - 1, np.uint32(7)):
        call(seed)
    for seed in (-1, 2**bits, 0.5, "1"):
        with pytest.raises(ArgumentError, match="expected a whole number"):
            call(seed)


def test_the_largest_seed_is_kept():
    layer = nb.Dropout(0.5, seed=2**64 - 1)
    layer.build((3,), backend="numpy")
    assert layer.buffers["seed"].tolist() == [2**64 - 1]
    assert _seed_of_a_trainer(2**64 - 1).seed == 2**64 - 1


@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: nb.Conv2D(4, wrong),
        lambda wrong: nb.Conv2D(4, 3, stride=wrong),
        lambda wrong: nb.Conv2D(4, 3, padding=wrong),
        lambda wrong: nb.Conv1D(4, 3, padding=wrong),
        lambda wrong: nb.ConvTranspose2D(4, 3, padding=wrong),
        lambda wrong: nb.ConvTranspose1D(4, 3, padding=wrong),
        lambda wrong: nb.MaxPool2D(wrong),
        lambda wrong: nb.AvgPool2D(2, padding=wrong),
        lambda wrong: nb.MaxPool1D(2, padding=wrong),
        lambda wrong: nb.UpSample2D(wrong),
        lambda wrong: nb.AdaptiveAvgPool2D(wrong),
        lambda wrong: nb.Permute((wrong, 2)),
    ],
)
@pytest.mark.parametrize("wrong", [True, np.array([1, 2]), None, [[1], [2]]], ids=repr)
def test_sizes_are_whole_numbers(make, wrong):
    with pytest.raises(ArgumentError, match="expected"):
        make(wrong)


@pytest.mark.parametrize("wrong", [[], {}], ids=repr)
def test_names_are_text(wrong):
    calls = (
        lambda: nb.Dense(3, activation=wrong),
        lambda: nb.BatchNorm(activation=wrong),
        lambda: nb.BatchNorm(track=wrong),
        lambda: nb.BatchNorm(zero_debias=wrong),
        lambda: nb.BatchNorm.preset(wrong),
        lambda: nb.initializers.get(wrong),
        lambda: nb.schedules.get(wrong),
        lambda: nb.models.get(wrong),
        lambda: nb.models.choose(wrong, (8, 8, 1)),
        lambda: nb.batch_norm_export(nb.BatchNorm(), wrong),
    )
    for call in calls:
        with pytest.raises(ArgumentError):
            call()


@pytest.mark.parametrize("wrong", [3, None, nb.Dense])
def test_containers_take_layers(wrong):
    calls = [lambda: nb.Sequential(wrong), lambda: nb.Concat([wrong, nb.Dense(2)]), lambda: nb.Add([nb.Dense(2), wrong])]
    calls += [lambda: nb.Residual(wrong), lambda: nb.Residual(nb.Dense(2), wrong)] if wrong is not None else []
    for call in [*calls, lambda: nb.Sequential(nb.Dense(2))]:
        with pytest.raises(ArgumentError, match=r"expected a (list of layers|layer such as)"):
            call()


def test_an_array_for_dx_is_for_padding_with_zeros(rng):
    x, weight = rng.standard_normal((2, 4, 4, 2)), rng.standard_normal((3, 3, 2, 2))
    y, saved = nb.functional.conv2d_forward(x, weight, padding_mode="edge", backend="numpy")
    dx = np.ones_like(x)
    with pytest.raises(ArgumentError, match="dx is an array to write to, expected None"):
        nb.functional.conv2d_backward(y, saved, dx=dx)
    assert (dx == 1).all()
