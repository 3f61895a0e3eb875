"""The batches of training and evaluation, with the transforms of `Trainer(augment=)` (nbnet.augment)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import tee
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
from nbnet.runtime.arrays import each, first, in_dtype, take
from nbnet.runtime.lazy import Ahead, is_read
from nbnet.training.epoch import Batch, Data, gather


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


def training_batches(trainer: Any, x: Any, y: Any, batches: Iterable[np.ndarray]) -> Generator[tuple[Any, Any]]:
    """x and y of each batch of rows of the trainer's epoch, x where the model reads it. What is not in memory is read ahead."""
    model, epoch, seed = trainer.model, trainer.epoch, trainer.seed
    batches = list(batches)
    pipeline = Pipeline(trainer.augment, x.shape[1:]) if trainer.augment else None

    def wanted() -> Iterator[np.ndarray]:
        """The rows of each access to x."""
        for rows in batches:
            yield rows
            if pipeline is not None and pipeline.mixes:
                yield pipeline.mixed(rows, epoch, seed, len(x)).partners

    with ExitStack() as threads:
        read = each(lambda part: threads.enter_context(closing(Ahead(part, wanted()))) if is_read(part) else part, x)
        if pipeline is None:
            images = model.backend.upload((gather(read, rows, model) for rows in batches), model.dtype)
            yield from zip(images, (take(y, rows) for rows in batches))
            return
        for rows in batches:
            pictures, mixed = pipeline.run(read, rows, epoch, seed, model.backend, model.dtype)
            if mixed is None:
                yield pictures, take(y, rows)
            else:
                yield pictures, targets(mixed, y[rows], y[mixed.partners], model.output_shape[-1], model.dtype)


def own_rows(trainer: Any, rows: np.ndarray) -> np.ndarray:
    """Those rows of a batch that this rank has."""
    return rows if trainer.sliced is None else rows[trainer.sliced.own_rows(len(rows), trainer.accumulate)]


def own_batches(trainer: Any, batches: Iterable[Data], done: int) -> Iterator[Batch]:
    """Batches of the user's own for a step, x where the model reads it. Their rows are numbered as they come in the epoch, from `done`;
    partners of MixUp and CutMix are of the same batch."""
    model = trainer.model
    if not trainer.augment:
        cut = ((own_rows(trainer, np.arange(len(first(x)))), x, y, weights) for x, y, weights in batches)
        some, same = tee(cut)
        images = model.backend.upload((gather(x, rows, model) for rows, x, _, _ in some), model.dtype)
        for placed, (rows, x, y, weights) in zip(images, same):
            of_rows = (y, weights) if trainer.sliced is None else (take(y, rows), _of(weights, rows))
            yield Batch(placed, of_rows[0], of_rows[1], len(first(x)))
        return
    pipeline = Pipeline(trainer.augment, model.input_shape)
    for x, y, weights in batches:
        own = own_rows(trainer, np.arange(len(x)))
        pictures, mixed = pipeline.run(x, own + done, trainer.epoch, trainer.seed, model.backend, model.dtype, done)
        of_own = take(y, own)
        if mixed is not None:
            of_own = targets(mixed, of_own, y[mixed.partners - done], model.output_shape[-1], model.dtype)
        yield Batch(pictures, of_own, _of(weights, own), len(x))
        done += len(x)


def _of(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[rows]


def for_evaluation(trainer: Any, x: Any) -> Any:
    """A batch as `forward` takes it: normalised by the trainer's Normalize, if it has one, and otherwise as it is."""
    if not any(isinstance(each, Normalize) for each in trainer.augment):
        return in_dtype(x, trainer.model.dtype)
    return Pipeline(trainer.augment, x.shape[1:]).plain(x, trainer.model.backend, trainer.model.dtype)
