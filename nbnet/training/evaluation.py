"""What a Trainer measures: loss, accuracy and metrics, of training batches and of whole data sets, and reports of classes."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.losses import Elementwise, PerOutput, counted_rows
from nbnet.losses.base import check_result, count_rows, name_of
from nbnet.metrics import Metric, Report
from nbnet.metrics.classes import decisions, labels_of
from nbnet.runtime.arrays import each, take
from nbnet.training.augmented import for_evaluation
from nbnet.training.epoch import Data, Sums


def started(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Copies of metrics, without rows."""
    copies = copied(metrics)
    for metric in copies:
        metric.reset()
    return copies


def copied(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    return tuple([copy.copy(metric) for metric in metrics])


def measure(metrics: Iterable[Metric], loss: Any, prediction: Any, target: Any, weights: np.ndarray | None) -> None:
    """Add the rows of a batch that the loss counts to metrics."""
    counted, prediction = counted_rows(loss, target), each(np.asarray, prediction)
    if counted is not None:
        prediction, target, weights = take(prediction, counted), take(target, counted), None if weights is None else weights[counted]
    for metric in metrics:
        metric.update(prediction, target, weights)


def evaluate(trainer: Any, batches: Generator[Data]) -> tuple[Sums, tuple[Metric, ...]]:
    """What the loss adds up over batches that are checked already, and the trainer's metrics of them."""
    sums, metrics, loss = Sums(), started(trainer.metrics), trainer.loss
    options: dict[str, Any] = {"backend": trainer.model.backend}
    keep = np.array if trainer.ranks.size > 1 else None  # results of all batches, not one by one

    def results() -> Iterator[tuple[Any, ...]]:
        for x, target, weights in batches:
            prediction, _ = trainer.model.forward(for_evaluation(trainer, x))
            given = {} if weights is None else {"sample_weight": weights}
            result = check_result(loss(prediction, target, **options, **given), prediction, loss)
            rows = (prediction if keep is None else each(keep, prediction), target, weights) if metrics else ()
            yield result.total, result.correct, count_rows(loss, target), rows

    with closing(batches):
        for total, correct, counted, rows in trainer.ranks.dealt(results()):
            sums = sums.plus(total, correct, counted)
            if metrics:
                measure(metrics, loss, *rows)
    return sums, metrics


def report(trainer: Any, batches: Generator[Data], class_names: Sequence[str] | None) -> Report:
    """The report of batches that are checked already. Raises ArgumentError: the loss has no classes, or several for a row."""
    loss, shape = trainer.loss, trainer.model.output_shape
    threshold = getattr(loss, "threshold", None)
    numbers = isinstance(loss, PerOutput) or (threshold is None and (isinstance(loss, Elementwise) or shape[-1:] == (1,)))
    if numbers or (threshold is not None and shape != (1,)) or len(shape) != 1:
        raise ArgumentError(f"report is for rows with one class, the loss {name_of(loss)} with outputs of shape {shape} has none")
    classes = 2 if threshold is not None else shape[-1]
    matrix = np.zeros((classes, classes), np.int64)
    if class_names is not None and len(class_names) != classes:
        raise ArgumentError(f"class_names has {len(class_names)} names, expected {classes}, one for each class")
    with closing(batches):
        for x, target, _ in batches:
            prediction = np.asarray(trainer.model.forward(for_evaluation(trainer, x))[0])
            if (counted := counted_rows(loss, target)) is not None:
                prediction, target = prediction[counted], target[counted]
            if threshold is None:
                said, true = prediction.argmax(axis=1), labels_of(prediction, target)
            else:
                said, true = (which[:, 0].astype(np.int64) for which in decisions(prediction, target, threshold))
            matrix += np.bincount(classes * true + said, minlength=classes**2).reshape(classes, classes)
    return Report(sum(trainer.ranks.gather(matrix)), class_names)
