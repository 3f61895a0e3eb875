"""EarlyStopping(restore_best=True): the model ends with the weights and moving statistics of the best epoch, over files and stops too."""

import copy
import json

import numpy as np
import pytest
import safetensors.numpy

import nbnet as nb
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.training.epoch import Position

from .small import bits, small_trainer

LOSSES = [3.0, 1.0, 2.0, 2.0, 2.0, 0.5, 0.6]  # epochs 2 and 6 are the best


class Losses(nb.callbacks.Callback):
    """Gives the history a column of made-up losses, and keeps the model of each epoch."""

    def __init__(self, losses=LOSSES):
        self.losses, self.models = losses, {}

    def on_epoch_end(self, trainer):
        trainer.history["own_loss"] = self.losses[: trainer.epoch]
        self.models[trainer.epoch] = model_of(trainer)


def model_of(trainer):
    return {name: np.array(array).tobytes() for name, array in trainer.model.state().items()}


def fit(trainer, data, epochs=7, *more, losses=LOSSES, patience=3, **options):
    """The models of the epochs."""
    own = Losses(losses)
    stopping = nb.callbacks.EarlyStopping("own_loss", patience, restore_best=True, **options)
    trainer.fit(data, epochs, 35, callbacks=[own, *more, stopping], progress=False)
    return own.models


@pytest.mark.parametrize("backend", ["serial", "numpy"])
def test_the_best_epoch(data, backend):
    """After it has stopped training, and after the last epoch."""
    trainer = small_trainer(backend, average=nb.ExponentialMovingAverage(0.9))
    models = fit(trainer, data)
    assert (trainer.epoch, trainer.best.epoch, trainer.stop_reason) == (5, 2, "own_loss has not improved for 3 epochs")
    assert model_of(trainer) == models[2] != models[5]
    assert any("moving_mean" in name and models[2][name] != models[5][name] for name in models[2])
    other = small_trainer(backend)
    models = fit(other, data, patience=4)
    assert (other.epoch, other.best.epoch, other.stop_reason) == (7, 6, None)
    assert model_of(other) == models[6] != models[7]


def test_it_is_off_by_default(data):
    trainer, own = small_trainer(), Losses()
    trainer.fit(data, 7, 35, callbacks=[own, nb.callbacks.EarlyStopping("own_loss", 3)], progress=False)
    assert trainer.best is None
    assert model_of(trainer) == own.models[5]


def test_min_delta(data):
    """The best epoch is the last one that counts as an improvement."""
    trainer = small_trainer()
    models = fit(trainer, data, 3, losses=[3.0, 2.0, 1.9], min_delta=0.5)
    assert trainer.best.epoch == 2
    assert model_of(trainer) == models[2]


def test_no_epoch_improves(data):
    trainer = small_trainer()
    models = fit(trainer, data, 2, losses=[np.nan, np.nan])
    assert trainer.best is None
    assert model_of(trainer) == models[2]


class Saves(nb.callbacks.Callback):
    """Saves after an epoch or within one, and stops there."""

    def __init__(self, epoch, path, within):
        self.epoch, self.path, self.within = epoch, path, within

    def on_epoch_end(self, trainer):
        if trainer.epoch == self.epoch and not self.within:
            trainer.save(self.path)

    def on_batch_end(self, trainer):
        if trainer.epoch == self.epoch and self.within and trainer.position.batches == 1:
            trainer.save(self.path)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_a_resumed_run_ends_as_an_uninterrupted_one(data, tmp_path, epoch, within):
    """Whether the best epoch is before the file, in it, or after it; a checkpoint may be written before the callback has seen an epoch."""
    whole, second = small_trainer(), small_trainer()
    fit(whole, data, 7, Saves(epoch, tmp_path / "run", within))
    second.restore(tmp_path / "run")
    assert (second.epoch, second.position.batches) == (epoch, int(within))
    fit(second, data)
    assert (second.epoch, second.best.epoch, second.stop_reason) == (whole.epoch, whole.best.epoch, whole.stop_reason)
    assert bits(second) == bits(whole)
    assert bits(copy.deepcopy(second)) == bits(whole)


class StopsAt(nb.callbacks.Callback):
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop("test")


def test_an_epoch_that_was_stopped_within_starts_again(data, tmp_path):
    trainer, other = small_trainer(), small_trainer()
    models = fit(trainer, data, 7, StopsAt(7))
    assert (trainer.epoch, trainer.best.epoch, trainer.position) == (3, 2, Position())
    assert model_of(trainer) == models[2]
    trainer.save(tmp_path / "run")
    other.restore(tmp_path / "run")
    for run in (trainer, other):
        fit(run, data)
        assert (run.epoch, run.step) == (5, 11)
    assert bits(trainer) == bits(other)


def test_an_exception_keeps_the_run_as_it_is(data):
    """Only a call of fit that returns gives the best weights back."""
    trainer, whole, full = small_trainer(), small_trainer(), nb.callbacks.Callback()
    full.on_epoch_end = lambda run: 1 / (4 - run.epoch)
    with pytest.raises(ZeroDivisionError):
        fit(trainer, data, 7, full)
    assert (trainer.epoch, trainer.best.epoch) == (4, 2)
    fit(trainer, data)
    fit(whole, data)
    assert bits(trainer) == bits(whole)


def test_weights_that_were_not_kept(data, tmp_path):
    """One line, before anything is trained."""
    trainer = small_trainer()
    trainer.fit(data, 3, 35, callbacks=[Losses()], progress=False)
    before = bits(trainer)
    with pytest.raises(
        ArgumentError, match=r"^EarlyStopping\(restore_best=True\) needs the weights of epoch 2, the best .* keeps none: use"
    ):
        fit(trainer, data)
    assert (bits(trainer), trainer.best) == (before, None)
    fit(small := small_trainer(), data, 3)
    with pytest.raises(
        ArgumentError, match=r"weights of epoch 1, the best of this run by own_loss, but the trainer keeps those of epoch 2"
    ):
        fit(small, data, min_delta=2.5)
    two = [nb.callbacks.EarlyStopping("own_loss", 9, delta, restore_best=True) for delta in (0, 2.5)]
    with pytest.raises(ArgumentError, match="use one such callback, with the same options from the start"):
        small_trainer().fit(data, 3, 35, callbacks=[Losses(), *two], progress=False)


def test_a_run_whose_last_epoch_is_the_best(data):
    """Its weights are those that the model has: the callback may come then."""
    trainer = small_trainer()
    trainer.fit(data, 2, 35, callbacks=[Losses()], progress=False)
    best = model_of(trainer)
    fit(trainer, data)
    assert model_of(trainer) == best


def test_a_run_that_has_left_its_best_epoch(data):
    """By one batch."""
    trainer = small_trainer()
    trainer.fit(data, 3, 35, callbacks=[Losses(), StopsAt(5)], progress=False)
    with pytest.raises(ArgumentError, match="needs the weights of epoch 2"):
        fit(trainer, data)


def edited(path, change):
    """A checkpoint after a change to its arrays and its description."""
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    run = json.loads(metadata["run"])
    change(arrays, run)
    safetensors.numpy.save_file(arrays, path, metadata | {"run": json.dumps(run)})


NAME = "best.0.conv2d.weight"
DAMAGE = {
    "an array is missing": (lambda arrays, run: arrays.pop(NAME), r"weights of its best epoch, has no '0\.conv2d\.weight'"),
    "of another shape": (lambda arrays, run: arrays.update({NAME: np.zeros(3)}), r"'0\.conv2d\.weight' has shape \(3,\)"),
    "NaN": (lambda arrays, run: arrays.update({NAME: np.full_like(arrays[NAME], np.nan)}), "contains NaN or infinity"),
    "no epoch": (lambda arrays, run: run.update(best=None), "has '0.batchnorm|has '0.conv2d"),
    "epoch 0": (lambda arrays, run: run.update(best=0), "damaged.*best"),
    "an epoch to come": (lambda arrays, run: run.update(best=6), "epoch is 5, but the best one is 6"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files(data, tmp_path, kind):
    change, words = DAMAGE[kind]
    trainer, path = small_trainer(), tmp_path / "run"
    fit(trainer, data)
    trainer.save(path)
    edited(path, change)
    before, best = bits(trainer), trainer.best
    with pytest.raises(CheckpointError, match=words):
        trainer.restore(path)
    assert bits(trainer) == before
    assert trainer.best is best


def test_other_files(data, tmp_path):
    """One without best weights drops those of the trainer; its own are no weights of a model, and a state has copies."""
    trainer, other, path = small_trainer(), small_trainer(), tmp_path / "run"
    fit(trainer, data)
    trainer.save(path)
    assert not other.model.load_weights(path).unexpected
    state = trainer.state()
    other.load_state(state)
    assert other.best.epoch == 2
    assert not any(np.shares_memory(array, state.arrays[f"best.{name}"]) for name, array in other.best.arrays.items())

    def age(arrays, run):
        del run["best"]
        for name in [name for name in arrays if name.startswith("best.")]:
            del arrays[name]

    edited(path, age)
    other.restore(path)
    assert other.best is None
