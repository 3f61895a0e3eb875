"""The batches of training and evaluation, with the transforms of `Trainer(augment=)` (nbnet.augment)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nbnet import augment
from nbnet.augment import Normalize, Transform
from nbnet.augment.mixing import Mixing, targets
from nbnet.augment.pipeline import Pipeline
from nbnet.errors import ArgumentError
from nbnet.layers import Sequential
from nbnet.losses import SoftmaxCrossEntropy
from nbnet.losses.base import name_of
from nbnet.runtime.arrays import in_dtype, take
from nbnet.training.epoch import gather


def check_augment(transforms: Any, model: Sequential, loss: Any) -> tuple[Transform, ...]:
    """The transforms of a Trainer.

    Raises:
        ArgumentError: they do not fit the model's images, or mix targets that the loss does not take mixed.
    """
    found = augment.get(transforms, model.input_shape)
    if any(isinstance(each, Mixing) for each in found):
        if not isinstance(loss, SoftmaxCrossEntropy):
            raise ArgumentError(f"MixUp and CutMix give probabilities as targets, got {name_of(loss)}: expected softmax_cross_entropy")
        if loss.ignore_index is not None:
            raise ArgumentError("MixUp and CutMix give probabilities as targets, got a loss with ignore_index, expected one without")
    return found


def training_batches(trainer: Any, x: Any, y: Any, batches: Iterable[np.ndarray]) -> Iterator[tuple[Any, Any]]:
    """x and y of each batch of rows of the trainer's epoch, x where the model reads it."""
    model, epoch, seed = trainer.model, trainer.epoch, trainer.seed
    batches = list(batches)
    if not trainer.augment:
        images = model.backend.upload((gather(x, rows, model) for rows in batches), model.dtype)
        yield from zip(images, (take(y, rows) for rows in batches))
        return
    pipeline = Pipeline(trainer.augment, x.shape[1:])
    for rows in batches:
        pictures, mixed = pipeline.run(x, rows, epoch, seed, model.backend, model.dtype)
        if mixed is None:
            yield pictures, take(y, rows)
        else:
            yield pictures, targets(mixed, y[rows], y[mixed.partners], model.output_shape[-1], model.dtype)


def for_evaluation(trainer: Any, x: Any) -> Any:
    """A batch as `forward` takes it: normalised by the trainer's Normalize, if it has one, and otherwise as it is."""
    if not any(isinstance(each, Normalize) for each in trainer.augment):
        return in_dtype(x, trainer.model.dtype)
    return Pipeline(trainer.augment, x.shape[1:]).plain(x, trainer.model.backend, trainer.model.dtype)
