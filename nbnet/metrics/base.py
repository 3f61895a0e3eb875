"""What a metric is: an object that is reset, updated with batches, and asked for its result; or a function of all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.runtime.arrays import each, several


class Metric(CodeRepr):
    """Base class of metrics. A subclass sets `name` and defines reset, update and result.

    `update` gives attributes new values, and writes into no array that it holds: a step that an exception undoes goes back to a copy of
    the metric from before, whose attributes are the same arrays.
    """

    _package = "nbnet.metrics"
    name = ""  # of its column in the history
    smaller_is_better = False

    def reset(self) -> None:
        """Start again without rows."""
        raise NotImplementedError

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        """Add the rows of a batch.

        Args:
            prediction: (M, ...) on the host, what the model returned, valid until update returns; of several outputs a tuple.
            target: (M, ...), as the loss takes it. weight: (M,) of the rows; None for 1.
        """
        raise NotImplementedError

    def result(self) -> float:
        """The metric of all rows since reset; NaN where there is none."""
        raise NotImplementedError

    def check(self, loss: Any, output_shape: tuple[Any, ...]) -> None:
        """Check that the metric fits the targets of a loss. Raises ArgumentError: it cannot."""


class OneOutput(Metric):
    """Base of metrics of models with one output."""

    def check(self, loss: Any, output_shape: tuple[Any, ...]) -> None:
        if several(output_shape):
            raise ArgumentError(
                f"the metric {self.name!r} is for one output, the model has {len(output_shape)}: expected a function of (y, prediction)"
            )

    def rows(self, prediction: Any, target: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The batch as arrays, with a weight for each row. Raises ShapeError: they have different lengths."""
        prediction, target = np.asarray(prediction), np.asarray(target)
        weight = np.ones(len(prediction)) if weight is None else np.asarray(weight, np.float64)
        if not len(prediction) == len(target) == len(weight):
            lengths = len(prediction), len(target), len(weight)
            raise ShapeError(f"the metric {self.name!r} got predictions, targets and weights of {lengths} rows, expected as many of each")
        return prediction, target, weight


class FunctionMetric(Metric):
    """A function f(y, prediction) -> number as a metric. It gets all rows of an epoch at once, in the order of the batches.

    Raises:
        ArgumentError: it has no name.
    """

    def __init__(self, function: Callable[[Any, Any], float]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        if not self.name.isidentifier():
            raise ArgumentError(f"metrics has a function named {self.name}: define it with def, since the history uses its name")
        self.reset()

    def reset(self) -> None:
        self._batches: tuple[tuple[Any, Any], ...] = ()

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        self._batches = (*self._batches, (target, each(np.array, prediction)))

    def result(self) -> float:
        if not self._batches:
            return np.nan
        y, prediction = (each(lambda *parts: np.concatenate(parts), *parts) for parts in zip(*self._batches))
        value = self.function(y, prediction)
        if not checks.is_number(value):
            raise ArgumentError(f"the metric {self.name} returned {type(value).__name__}, expected a number")
        return float(value)


def ratio(numerator: Any, denominator: Any) -> float:
    """The quotient, and NaN for 0 / 0."""
    return float(numerator / denominator) if denominator else float("nan")
