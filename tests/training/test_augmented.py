"""Training on augmented images: resuming, evaluation, mixed targets, settings in checkpoints."""

import copy

import numpy as np
import pytest
from cuda_machine import GPU, SIMULATED
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import ArgumentError
from nbnet.training.augmented import training_batches

from .small import bits, small_model, small_trainer

A = nb.augment
ALL = [A.RandomFlip(alternating=True), A.RandomCrop(2), "affine", "color", "noise", "cutout", A.Normalize(0.4, 0.3), "mixup", "cutmix"]
CPU = ["numpy", "serial", "parallel"]


@pytest.fixture
def data(rng):
    return rng.integers(0, 256, (21, 6, 6, 1), dtype=np.uint8), rng.integers(0, 3, 21)


class Until(nb.callbacks.Callback):
    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def on_batch_end(self, trainer):
        self.batches -= 1
        if self.batches == 0:
            trainer.save(self.path)
            trainer.stop("enough")


@pytest.mark.parametrize("backend", ["cuda"] if SIMULATED or GPU else CPU)
@pytest.mark.parametrize("batches", [1, 3, 5])
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(data, tmp_path, backend, batches):
    whole = small_trainer(backend, "float32", augment=ALL, seed=4)
    whole.fit(data, 2, 6)
    stopped = small_trainer(backend, "float32", augment=ALL, seed=4)
    stopped.fit(data, 2, 6, callbacks=[Until(batches, tmp_path / "run.safetensors")])
    other = small_trainer(backend, "float32", augment=ALL, seed=4)
    other.restore(tmp_path / "run.safetensors")
    for trainer in (stopped, copy.deepcopy(other), other):
        trainer.fit(data, 2, 6)
        if backend != "cuda":
            assert bits(trainer) == bits(whole)
        assert trainer.history["loss"] == whole.history["loss"]


@pytest.mark.skipif(SIMULATED, reason="compares CPUs")
def test_backends_train_on_the_same_images(data):
    found = [next(training_batches(small_trainer(backend, augment=ALL), *data, [np.arange(21)])) for backend in CPU]
    for images, targets in found:
        assert images.tobytes() == found[0][0].tobytes()
        assert targets.tobytes() == found[0][1].tobytes()


def test_batches_are_those_of_apply(data):
    trainer = small_trainer("numpy", augment=ALL, seed=4)
    trainer.epoch = 3
    rows = [np.array([3, 1, 20]), np.array([7])]
    for some, (images, targets) in zip(rows, training_batches(trainer, *data, rows), strict=True):
        options = {"epoch": 3, "seed": 4}
        assert_close(images, A.apply(ALL, data[0], some, dtype="float64", backend="numpy", **options), "exact")
        assert_close(targets, A.mixed_targets(ALL, data[1], 3, (6, 6, 1), some, **options), "exact")


def test_without_transforms_nothing_changes(data):
    plain, empty = (small_trainer("serial", "float32", **options) for options in ({}, {"augment": []}))
    for trainer in (plain, empty):
        trainer.fit(data, 1, 6)
    assert bits(plain) == bits(empty)


def test_evaluation_is_normalised_and_nothing_else(data):
    x, y = data
    trainer = small_trainer("serial", augment=ALL)
    by_hand = nb.Trainer(trainer.model, optimizer=nb.Adam())
    normalised = (x / 255 - 0.4) / 0.3
    assert_close(list(trainer.evaluate(x, y).values()), list(by_hand.evaluate(normalised, y).values()), "reduction")
    assert_close(trainer.report(x, y).matrix, by_hand.report(normalised, y).matrix, "exact")
    predicted = trainer.model.predict(A.apply(trainer.augment, x, train=False, dtype="float64"))
    assert_close(predicted, trainer.model.predict(normalised), "reduction")
    validated = trainer.fit(data, 1, validation=data)["val_loss"][0]
    assert validated == trainer.evaluate(x, y)["loss"]


def test_train_batch_is_normalised_only(data):
    x, y = data
    first, second = small_trainer("serial", augment=ALL), small_trainer("serial")
    assert_close(first.train_batch(x, y)["loss"], second.train_batch((x / 255 - 0.4) / 0.3, y)["loss"], "reduction")


def test_mixing_takes_probabilities_too(data):
    x, y = data
    trainers = [small_trainer("serial", augment=["mixup"]) for _ in range(2)]
    trainers[0].fit((x, y), 1)
    trainers[1].fit((x, np.eye(3)[y]), 1)
    assert bits(trainers[0]) == bits(trainers[1])


def test_a_checkpoint_says_which_transforms_differ(data, tmp_path):
    trainer = small_trainer("serial", augment=["flip", A.RandomCrop(2)])
    trainer.fit(data, 1)
    trainer.save(tmp_path / "run.safetensors")
    small_trainer("serial", augment=[A.RandomFlip(), A.RandomCrop(2)]).restore(tmp_path / "run.safetensors")
    wanted = (
        r"augment stays \(nb.augment.RandomFlip\(\),\), was \(nb.augment.RandomFlip\(\), nb.augment.RandomCrop\(padding=2\)\) in the file"
    )
    with pytest.warns(UserWarning, match=wanted):
        small_trainer("serial", augment=["flip"]).restore(tmp_path / "run.safetensors")


def test_a_checkpoint_of_an_older_version(data):
    """It says nothing of transforms."""
    trainer = small_trainer("serial")
    trainer.fit(data, 1)
    arrays, run = trainer.state()
    del run["settings"]["augment"]
    small_trainer("serial", augment=["flip"]).load_state(type(trainer.state())(arrays, run))


BAD = {
    "unknown transform 'zoom'": {"augment": ["zoom"]},
    r"RandomCrop has padding=\(6, 6\) for images of 6x6: expected at most \(5, 5\)": {"augment": [A.RandomCrop(6)]},
    "MixUp and CutMix give probabilities as targets, got mean_squared_error: expected softmax_cross_entropy": {
        "augment": ["mixup"],
        "loss": "mean_squared_error",
    },
    "got a loss with ignore_index, expected one without": {
        "augment": ["cutmix"],
        "loss": nb.losses.SoftmaxCrossEntropy(ignore_index=-1),
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_lists(message):
    with pytest.raises(ArgumentError, match=message):
        nb.Trainer(small_model(), **BAD[message])


def test_only_images_are_augmented():
    model = nb.Sequential([nb.Dense(2)])
    model.build((3,))
    with pytest.raises(ArgumentError, match=r"^augment is for images of one shape .*, got inputs of shape \(3,\)$"):
        nb.Trainer(model, augment=["flip"])
