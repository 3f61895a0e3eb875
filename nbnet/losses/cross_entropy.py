"""The loss of classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.errors import DataError, ShapeError
from nbnet.functional import checks
from nbnet.losses.base import Loss, LossResult
from nbnet.preprocessing import check_labels
from nbnet.runtime.backend import Backend, get_backend


class SoftmaxCrossEntropy(Loss):
    """-log softmax(logits)[label] per row; the gradient is (softmax(logits) - onehot(label)) / rows   (Bishop 2006, section 4.3.4)."""

    name = "softmax_cross_entropy"

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """y as int64 labels (N,).

        Raises:
            ShapeError: y has more than one axis. DTypeError: y is not integers. DataError: a label is not a class of the model.
        """
        return check_labels(y, output_shape[-1])

    def __call__(self, prediction: Any, target: Any, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
        """See Loss.

        Args:
            prediction: logits (M, C), float32 or float64, before any softmax. target: (M,) integers from 0 to C - 1.
        Raises:
            ShapeError, DTypeError: an array does not fit. DataError: a label is not a class.
        """
        be = get_backend(backend)
        logits = checks.floats(prediction, "logits", 2, be=be)
        labels = np.asarray(target)
        count, classes = logits.shape
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            raise ShapeError(f"labels have shape {labels.shape} and dtype {labels.dtype}, expected ({count},) integers, one class per row")
        labels = labels.astype(np.int64)
        if labels.view(np.uint64).max() >= classes:  # as unsigned numbers, negative labels are the largest
            raise DataError(
                f"labels go from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}: the model has {classes} outputs"
            )
        losses, hits = be.empty((count,), np.float64), be.empty((count,), np.uint8)
        gradient = be.empty(logits.shape, logits.dtype)
        be.kernel("loss.softmax_cross_entropy")(logits, be.place(labels), 1 / (rows or count), losses, hits, gradient)
        losses, hits = be.host(losses, hits)
        return LossResult(float(losses.sum()), int(np.count_nonzero(hits)), gradient)


softmax_cross_entropy = SoftmaxCrossEntropy()
