"""Metrics: numbers that say how good predictions are, exact over all rows of an epoch, however they are cut into batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from nbnet.errors import ArgumentError, unknown
from nbnet.metrics.auc import AUC
from nbnet.metrics.base import FunctionMetric, Metric
from nbnet.metrics.classes import F1, Accuracy, OfClasses, Precision, Recall, TopAccuracy
from nbnet.metrics.numbers import R2, MeanAbsoluteError, OfNumbers
from nbnet.metrics.report import Report

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (Accuracy(), TopAccuracy(5), Precision(), Recall(), F1(), AUC(), MeanAbsoluteError(), R2())
}
TAKEN = ("loss", "lr", "seconds")  # columns of the history

__all__ = [
    "AUC",
    "F1",
    "METRICS",
    "R2",
    "Accuracy",
    "FunctionMetric",
    "MeanAbsoluteError",
    "Metric",
    "OfClasses",
    "OfNumbers",
    "Precision",
    "Recall",
    "Report",
    "TopAccuracy",
    "get",
    "get_all",
    "measured",
]


def get(metric: Any, threshold: float | None = None) -> Metric:
    """The metric of that name, the object itself, or a metric made of a function.

    Args:
        metric: a name in METRICS, an object like nbnet.metrics.Metric (with name, reset, update, result), or a function
            f(y, prediction) -> number, which gets all rows of an epoch at once.
        threshold: of a metric that is given by its name, if it is about classes (see nbnet.metrics.OfClasses).
    Raises:
        ArgumentError: it is none of these.
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ArgumentError(unknown("metric", metric, METRICS))
        made = METRICS[metric]
        if isinstance(made, OfClasses) and not isinstance(made, TopAccuracy):
            return type(made)(threshold)
        return copy.copy(made)
    if isinstance(metric, type):
        raise ArgumentError(f"metrics has the class {metric.__name__}, expected a metric object: use {metric.__name__}()")
    if all(callable(getattr(metric, method, None)) for method in ("reset", "update", "result")):
        if not isinstance(getattr(metric, "name", None), str) or not metric.name:
            raise ArgumentError(f"the metric {type(metric).__name__} has no name: set its attribute name, which the history uses")
        return metric
    if callable(metric):
        return FunctionMetric(metric)
    raise ArgumentError(unknown("metric", metric, METRICS))


def get_all(metrics: Any, loss: Any, output_shape: tuple[Any, ...]) -> tuple[Metric, ...]:
    """The metrics of a Trainer.

    Args:
        metrics: a list of what `get` takes. loss: whose outputs they measure. output_shape: of the model.
    Raises:
        ArgumentError: one is unknown or does not fit the loss, or two have one name.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise ArgumentError(f"metrics={metrics!r}: expected a list, such as metrics=['accuracy']")
    found = tuple([get(metric, getattr(loss, "threshold", None)) for metric in metrics])
    names = [metric.name for metric in found]
    for metric in found:
        if metric.name in TAKEN or metric.name.startswith("val_") or names.count(metric.name) > 1:
            raise ArgumentError(f"two columns of the history would have the name {metric.name!r}: give the metric another name")
        if isinstance(metric, Metric):
            metric.check(loss, output_shape)
    return found


def measured(metrics: Iterable[Metric]) -> dict[str, float]:
    """What each metric found, by its name."""
    return {metric.name: float(metric.result()) for metric in metrics}
