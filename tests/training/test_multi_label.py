"""Targets (N, C) of 0 and 1: several classes of a row, or none."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from nbnet.errors import DataError


def trainer_of(**options):
    model = nb.Sequential([nb.Flatten(), nb.Dense(3)])
    model.build((6, 6, 1), backend="serial", dtype="float64", seed=0)
    return nb.Trainer(model, "binary_cross_entropy", nb.Adam(0.05), **options)


@pytest.fixture
def labelled(data):
    """Whether each third of an image is bright; about half of the rows have another third as well."""
    x, y = data
    also = np.roll(y, 1)
    targets = np.eye(3, dtype=int)[y]
    for i in range(0, 70, 2):
        x[i, 2 * also[i] : 2 * also[i] + 2] |= 128
        targets[i, also[i]] = 1
    return x, targets


def test_training_and_metrics(labelled):
    x, y = labelled
    trainer = trainer_of(metrics=["accuracy", "precision", "recall", "f1"])
    history = trainer.fit(labelled, 60, 16, progress=False, validation=labelled)
    said = trainer.model.predict(x) > 0
    assert (y.sum(axis=1) > 1).any()
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_accuracy"][-1] == (said == y).mean() > 0.9
    right, found = (said & (y == 1)).sum(axis=0), said.sum(axis=0)
    assert_close(history["val_precision"][-1], np.mean(right / found), "training")
    assert_close(history["val_recall"][-1], np.mean(right / y.sum(axis=0)), "training")


def test_a_share_for_validation_and_batches_of_ones_own(labelled):
    split = trainer_of().fit(labelled, 2, validation_split=0.2, progress=False)
    assert len(split["val_loss"]) == 2
    x, y = labelled
    batches = [(x[:35], y[:35]), (x[35:], y[35:])]
    assert len(trainer_of().fit(batches, 2, progress=False)["loss"]) == 2
    with pytest.raises(DataError, match=r"^data, batch 1 of epoch 1: .*2"):
        trainer_of().fit([(x, 2 * y)], 1, progress=False)
