"""Metrics of regression, from sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.losses import SoftmaxCrossEntropy
from nbnet.losses.base import name_of
from nbnet.metrics.base import OneOutput, ratio


class OfNumbers(OneOutput):
    """Base of metrics of outputs that have a number as target."""

    def __init__(self) -> None:
        self.reset()

    def check(self, loss: Any, output_shape: tuple[Any, ...]) -> None:
        super().check(loss, output_shape)
        if isinstance(loss, SoftmaxCrossEntropy):
            raise ArgumentError(f"the metric {self.name!r} is for numbers, the loss {name_of(loss)} has classes: use 'accuracy' or 'f1'")

    def matrices(self, prediction: Any, target: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions and targets as (M, D) of float64, and the weights. Raises ShapeError: they do not fit."""
        prediction, target, weight = self.rows(prediction, target, weight)
        flat, wanted = (array.reshape(len(array), -1).astype(np.float64) for array in (prediction, target))
        if flat.shape != wanted.shape:
            raise ShapeError(f"the metric {self.name!r} got targets of shape {target.shape}, expected {prediction.shape}, as the outputs")
        return flat, wanted, weight


class MeanAbsoluteError(OfNumbers):
    """The mean of |prediction - target| over rows and outputs."""

    name = "mae"
    smaller_is_better = True

    def reset(self) -> None:
        self._error = self._total = 0.0

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        prediction, target, weight = self.matrices(prediction, target, weight)
        self._error += float(weight @ np.abs(prediction - target).sum(axis=1))
        self._total += float(weight.sum()) * prediction.shape[1]

    def result(self) -> float:
        return ratio(self._error, self._total)


class R2(OfNumbers):
    """1 - (sum of squared errors) / (sum of squared deviations of the targets from their mean): the mean over the outputs.

    Of constant targets it is 1 if there is no error, else 0, as in scikit-learn. Deviations of batches are merged by Chan's formula, so
    targets far from 0 lose nothing.
    """

    name = "r2"

    def reset(self) -> None:
        self._total = 0.0
        self._mean: Any = 0.0  # (D,)
        self._deviations: Any = 0.0
        self._errors: Any = 0.0

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        prediction, target, weight = self.matrices(prediction, target, weight)
        total = float(weight.sum())
        if total == 0:
            return
        mean = (weight @ target) / total
        delta, both = mean - self._mean, self._total + total
        self._deviations = self._deviations + weight @ (target - mean) ** 2 + delta**2 * (self._total * total / both)
        self._errors = self._errors + weight @ (prediction - target) ** 2
        self._mean, self._total = self._mean + delta * (total / both), both

    def result(self) -> float:
        if self._total == 0:
            return float("nan")
        constant = self._deviations == 0
        shares = np.divide(self._errors, self._deviations, out=(self._errors > 0).astype(np.float64), where=~constant)
        return float((1 - shares).mean())
