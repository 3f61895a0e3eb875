"""The losses of classification: of the softmax of logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, DataError, ShapeError
from nbnet.functional import checks
from nbnet.losses.base import Loss, Started, divisor
from nbnet.preprocessing import check_labels, check_probabilities, check_sample_weight
from nbnet.runtime.backend import Backend, get_backend


class SoftmaxCrossEntropy(Loss):
    """-log softmax(logits)[label] per row; the gradient is (softmax(logits) - onehot(label)) / rows   (Bishop 2006, section 4.3.4).

    Targets are labels, or probabilities t of the classes: then -sum_c t_c log softmax(logits)_c.

    Args:
        label_smoothing: s from 0 to 1: targets become (1 - s) t + s / C   (Szegedy et al. 2016, section 7).
        class_weight: C numbers of at least 0, which multiply the targets: a row with label c counts class_weight[c] times. The sum is
            still divided by the rows, as in Keras (see Loss); PyTorch divides it by the sum of the labels' weights.
        ignore_index: a label that is not a class: such rows have no loss, and are not counted in the mean or the accuracy.
        reduction: "mean" or "sum" over the rows.
    Raises:
        ArgumentError: an option is out of range.
    """

    name = "softmax_cross_entropy"
    label_smoothing = 0.0
    class_weight: tuple[float, ...] | None = None
    ignore_index: int | None = None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weight: Sequence[float] | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.label_smoothing = checks.number(label_smoothing, "label_smoothing", "a number from 0 to 1", lambda s: 0 <= s <= 1)
        if class_weight is not None:
            self.class_weight = _class_weight(class_weight)
        if ignore_index is not None:
            self.ignore_index = checks.whole(ignore_index, "ignore_index", -(1 << 63))

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """y as int64 labels (N,), or probabilities (N, C).

        Raises:
            ShapeError: y has another shape. DTypeError: y is not numbers, or labels are not whole. DataError: a label is not a class,
                or the probabilities of a row are below 0 or do not sum to 1. ArgumentError: class_weight has not one number per class.
        """
        classes = output_shape[-1]
        self._check_class_weight(classes)
        array = checks.as_array(y, "y")
        if array.ndim == 2 and array.shape[1] == classes > 1 and array.dtype.kind in "biuf":
            return check_probabilities(array)
        if self.ignore_index is None or array.dtype.kind not in "iu":
            return check_labels(y, classes)
        check_labels(np.where(array == self.ignore_index, 0, array), classes)
        return array.astype(np.int64, copy=False)

    def _check_class_weight(self, classes: int) -> None:
        if self.class_weight is not None and len(self.class_weight) != classes:
            raise ArgumentError(f"class_weight has {len(self.class_weight)} numbers, expected {classes}, one for each output of the model")

    def counted(self, target: Any) -> np.ndarray | None:
        return None if self.ignore_index is None or target.ndim == 2 else target != self.ignore_index

    def _start(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> Started:
        """See Loss.

        Args:
            prediction: logits (M, C), float32 or float64, before any softmax. target: (M,) integers from 0 to C - 1, or (M, C).
        Raises:
            ShapeError, DTypeError: an array does not fit. DataError: a label is not a class.
        """
        be = get_backend(backend)
        logits = checks.floats(prediction, "logits", 2, be=be)
        labels = np.asarray(target)
        count, classes = logits.shape
        if labels.ndim == 2 and labels.shape == logits.shape:
            counted, shares = count, self._smoothed(check_probabilities(labels).astype(np.float64), classes)
        else:
            if labels.shape != (count,) or labels.dtype.kind not in "iu":
                raise ShapeError(
                    f"labels have shape {labels.shape} and dtype {labels.dtype}, expected ({count},) integers, one class per row"
                )
            labels = labels.astype(np.int64)
            ignored = None if self.ignore_index is None else labels == self.ignore_index
            if ignored is not None:
                labels[ignored] = 0
            if labels.view(np.uint64).max() >= classes:  # as unsigned numbers, negative labels are the largest
                raise DataError(
                    f"labels go from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}: the model has {classes} outputs"
                )
            if ignored is None and sample_weight is None and not self.label_smoothing and self.class_weight is None:
                return self._run("softmax_cross_entropy", be, logits, (be.place(labels),), rows or divisor(self, count))
            shares = np.zeros(logits.shape)
            shares[np.arange(count), labels] = 1
            counted, shares = count, self._smoothed(shares, classes)
            if ignored is not None:
                shares[ignored] = 0
                counted = count - int(np.count_nonzero(ignored))
        weights = np.ones(count) if sample_weight is None else check_sample_weight(sample_weight, count)
        targets = be.place(shares.astype(logits.dtype)), be.place(weights.astype(logits.dtype))
        return self._run("soft_cross_entropy", be, logits, targets, rows or divisor(self, counted))

    def _smoothed(self, shares: np.ndarray, classes: int) -> np.ndarray:
        if self.label_smoothing:
            shares = (1 - self.label_smoothing) * shares + self.label_smoothing / classes
        if self.class_weight is not None:
            self._check_class_weight(classes)
            shares = shares * self.class_weight
        return shares

    def _run(self, kernel: str, be: Backend, logits: Any, targets: tuple[Any, ...], rows: int) -> Started:
        count = len(logits)
        losses, hits = be.empty((count,), np.float64), be.empty((count,), np.uint8)
        gradient = be.empty(logits.shape, logits.dtype)
        be.kernel(f"loss.{kernel}")(logits, *targets, 1 / rows, losses, hits, gradient)
        return Started(gradient, (losses, hits), lambda arrays: (float(arrays[0].sum()), int(np.count_nonzero(arrays[1]))))


def _class_weight(weights: Any) -> tuple[float, ...]:
    if isinstance(weights, dict):
        raise ArgumentError("class_weight is a dict, expected one number for each class: use [weights.get(c, 1) for c in range(classes)]")
    found = np.asarray(weights)
    if found.ndim != 1 or found.dtype.kind not in "biuf" or not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise ArgumentError(f"class_weight={weights!r}: expected one finite number of at least 0 for each class, not all of them 0")
    return tuple(map(float, found))


class KLDivergence(SoftmaxCrossEntropy):
    """sum_c t_c (log t_c - log softmax(logits)_c) per row, for probabilities t of the classes   (Kullback and Leibler 1951).

    The logits may be log-probabilities, such as nb.LogSoftmax gives: their softmax changes nothing.

    Args:
        reduction: "mean" (PyTorch's "batchmean") or "sum" over the rows.
    """

    name = "kl_divergence"

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """y as probabilities (N, C).

        Raises:
            ShapeError: y has another shape. DTypeError: y is not numbers. DataError: they are below 0 or do not sum to 1 in a row.
        """
        y = checks.as_array(y, "y")
        if y.shape[1:] != output_shape:
            expected = f"({len(y)}, {output_shape[-1]})"
            raise ShapeError(
                f"targets have shape {y.shape}, expected {expected} probabilities; for labels use loss='softmax_cross_entropy'"
            )
        return check_probabilities(y)

    def _start(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> Started:
        """See Loss.

        Args:
            prediction: logits (M, C). target: probabilities (M, C).
        """
        shares = np.asarray(target, np.float64)
        if shares.shape != prediction.shape:
            raise ShapeError(f"targets have shape {shares.shape}, expected {prediction.shape}: the probabilities of each class")
        started = super()._start(prediction, shares, sample_weight=sample_weight, rows=rows, backend=backend)
        logs = np.log(shares, out=np.zeros(shares.shape), where=shares > 0)
        weights = 1.0 if sample_weight is None else check_sample_weight(sample_weight, len(shares))
        entropies = weights * (shares * logs).sum(axis=1)
        return started._replace(finish=lambda arrays: (math.fsum((started.finish(arrays)[0], *entropies)), None))


softmax_cross_entropy = SoftmaxCrossEntropy()
kl_divergence = KLDivergence()
