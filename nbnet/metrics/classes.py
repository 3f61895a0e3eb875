"""Metrics of classification, from counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.losses import Elementwise
from nbnet.losses.base import name_of
from nbnet.metrics.base import OneOutput, ratio
from nbnet.preprocessing import check_labels

YES = 0.5  # targets above it say yes: of 0 and 1, and of -1 and 1


class OfClasses(OneOutput):
    """Base of metrics of classes.

    Args:
        threshold: None: a row has one class, that of its largest output; targets are labels (M,) or probabilities (M, C). A number: each
            output is a question of its own, and outputs above the threshold say yes; targets are 0 and 1, or -1 and 1.
    """

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold
        self.reset()

    def check(self, loss: Any, output_shape: tuple[Any, ...]) -> None:
        super().check(loss, output_shape)
        if self.threshold is None and (isinstance(loss, Elementwise) or output_shape[-1] == 1):
            raise ArgumentError(f"the metric {self.name!r} is for classes, the loss {name_of(loss)} has none: use 'mae' or 'r2'")


def labels_of(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The labels (M,) of targets that are labels, or probabilities (M, C)."""
    return target.argmax(axis=1) if target.shape == prediction.shape else check_labels(target, prediction.shape[-1])


def decisions(prediction: np.ndarray, target: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """What is said and what is true, (M, D) bool."""
    return prediction.reshape(len(prediction), -1) > threshold, target.reshape(len(target), -1) > YES


class Accuracy(OfClasses):
    """The share of rows (with a threshold: of outputs) that are correct.

    Args:
        threshold: see OfClasses.
    """

    name = "accuracy"

    def reset(self) -> None:
        self._right = self._total = 0.0

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        prediction, target, weight = self.rows(prediction, target, weight)
        if self.threshold is None:
            right = self.right(prediction, labels_of(prediction, target))[:, None]
        else:
            said, true = decisions(prediction, target, self.threshold)
            right = said == true
        self._right += float(weight @ right.sum(axis=1))
        self._total += float(weight.sum()) * right.shape[1]

    def right(self, prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Which rows are right, (M,) bool."""
        return prediction.argmax(axis=1) == labels

    def result(self) -> float:
        return ratio(self._right, self._total)


class TopAccuracy(Accuracy):
    """The share of rows whose class is among the k largest outputs. Of equal outputs, the first is the larger one.

    Args:
        k: at least 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = checks.whole(k, "k")
        self.name = f"top_{k}_accuracy"

    def check(self, loss: Any, output_shape: tuple[Any, ...]) -> None:
        if getattr(loss, "threshold", None) is not None:
            raise ArgumentError(
                f"the metric {self.name!r} is for rows with one class, each output of {name_of(loss)} is one: use 'accuracy'"
            )
        super().check(loss, output_shape)

    def right(self, prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
        own, place = prediction[np.arange(len(labels)), labels][:, None], np.arange(prediction.shape[1])
        behind = (prediction < own) | ((prediction == own) & (place >= labels[:, None]))
        return prediction.shape[1] - behind.sum(axis=1) < self.k


class OfCounts(OfClasses):
    """Base of metrics of the rows of each class that are right, said and true.

    Of two classes, the metric is that of class 1; of more, the mean over those that occur. With a threshold it is the mean over the
    outputs. Where a class is never predicted or has no rows, it is 0, as in scikit-learn.

    Args:
        threshold: see OfClasses.
    """

    def reset(self) -> None:
        self._counts: Any = 0.0  # (3, K): right, said, true

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        prediction, target, weight = self.rows(prediction, target, weight)
        if self.threshold is None:
            true, said, classes = labels_of(prediction, target), prediction.argmax(axis=1), prediction.shape[1]
            right = true == said
            pairs = (true[right], weight[right]), (said, weight), (true, weight)
            counts = [np.bincount(labels, weights, classes) for labels, weights in pairs]
        else:
            yes, true = decisions(prediction, target, self.threshold)
            counts = [weight @ which for which in (yes & true, yes, true)]
        self._counts = self._counts + np.array(counts)

    def result(self) -> float:
        if isinstance(self._counts, float):
            return float("nan")
        right, said, true = self._counts
        values = self.of_counts(right, said, true)
        if self.threshold is not None:
            return float(values.mean())
        occurs = said + true > 0
        return float(values[1]) if len(values) == 2 else float(values[occurs].mean()) if occurs.any() else float("nan")

    def of_counts(self, right: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0)


class Precision(OfCounts):
    """The share of predictions of a class that are correct: see OfCounts.

    Args:
        threshold: see OfClasses.
    """

    name = "precision"

    def of_counts(self, right: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
        return share(right, said)


class Recall(OfCounts):
    """The share of a class's rows that are predicted as that class: see OfCounts.

    Args:
        threshold: see OfClasses.
    """

    name = "recall"

    def of_counts(self, right: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
        return share(right, true)


class F1(OfCounts):
    """The harmonic mean of precision and recall: see OfCounts.

    Args:
        threshold: see OfClasses.
    """

    name = "f1"

    def of_counts(self, right: np.ndarray, said: np.ndarray, true: np.ndarray) -> np.ndarray:
        return share(2 * right, said + true)
