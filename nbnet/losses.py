"""Losses: each is a loss per row, averaged over the rows, with its gradient from the same pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, DataError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.runtime.backend import Backend, get_backend, on_device


class LossResult(NamedTuple):
    total: float  # sum of the rows' losses
    correct: int | None  # rows whose largest output is the label; None for regression
    gradient: np.ndarray  # of total / rows with respect to the prediction


def softmax_cross_entropy(logits, labels, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
    """-log softmax(logits)[label] per row; the gradient is (softmax - onehot) / rows.

    Args:
        logits: (M, C) float32 or float64, before any softmax. labels: (M,) integers from 0 to C - 1.
        rows: what the gradient is divided by: M, unless this is a part of a larger batch.
    Raises:
        ShapeError, DTypeError: an array does not fit. DataError: a label is not a class.
    """
    be = get_backend(backend)
    logits = checks.floats(logits, "logits", 2, be=be)
    labels = np.asarray(labels)
    count, classes = logits.shape
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ShapeError(f"labels have shape {labels.shape} and dtype {labels.dtype}, wanted ({count},) whole numbers, one class a row")
    labels = labels.astype(np.int64)
    if labels.view(np.uint64).max() >= classes:  # negative ones are then the largest
        raise DataError(f"labels go from {labels.min()} to {labels.max()}, wanted 0 to {classes - 1}: the model has {classes} outputs")
    losses, hits = be.empty((count,), np.float64), be.empty((count,), np.uint8)
    gradient = be.empty(logits.shape, logits.dtype)
    be.kernel("loss.softmax_cross_entropy")(logits, be.place(labels), 1 / (rows or count), losses, hits, gradient)
    losses, hits = be.host(losses, hits)
    return LossResult(float(losses.sum()), int(np.count_nonzero(hits)), gradient)


def mean_squared_error(prediction, target, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
    """The mean over a row's D outputs of (prediction - target)^2. prediction, target: (M, D), or (M,) for D = 1."""
    return _squared_error(prediction, target, True, rows, backend)


def sum_squared_error(prediction, target, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
    """The sum over a row's D outputs of (prediction - target)^2; like every loss here, averaged over the rows, not summed."""
    return _squared_error(prediction, target, False, rows, backend)


def _squared_error(prediction, target, mean: bool, rows: int | None, backend: str | Backend) -> LossResult:
    be = get_backend(backend)
    prediction = checks.floats(prediction, "prediction", be=be)
    count = len(prediction)
    target = be.place(target if on_device(target) else np.asarray(target, prediction.dtype))
    if target.shape != prediction.shape and target.size == prediction.size == count:
        target = target.reshape(prediction.shape)
    if target.shape != prediction.shape:
        raise ShapeError(f"targets have shape {target.shape}, wanted {prediction.shape}: one value an output")
    flat = prediction.reshape(count, -1)
    losses = be.empty((count,), np.float64)
    gradient = be.empty(prediction.shape, prediction.dtype)
    weight = 1 / flat.shape[1] if mean else 1.0
    be.kernel("loss.squared_error")(flat, target.reshape(flat.shape), weight, 1 / (rows or count), losses, gradient.reshape(flat.shape))
    (losses,) = be.host(losses)
    return LossResult(float(losses.sum()), None, gradient)


Loss = Callable[..., LossResult]
LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "mean_squared_error": mean_squared_error,
    "sum_squared_error": sum_squared_error,
}


def get(loss: Any) -> Loss:
    """The loss of that name, or the function itself: f(prediction, target, *, rows, backend) -> LossResult."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ArgumentError(unknown("loss", loss, LOSSES))
    return LOSSES[loss]
