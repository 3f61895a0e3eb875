"""The area under the curve of true against false positives."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.metrics.classes import YES, OfClasses, labels_of


class AUC(OfClasses):
    """The probability that a row of a class has a larger output than a row of another class, where equal outputs count one half
    (Hanley and McNeil 1982). It is exact: all outputs of the epoch are kept and sorted.

    Outputs are logits. Of two classes, it is that of class 1; of more, the mean over the classes that some rows have and some have not,
    from softmax probabilities (one class against the rest). With a threshold it is the mean over such outputs.

    Args:
        threshold: see OfClasses.
    """

    name = "auc"

    def reset(self) -> None:
        self._batches: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...] = ()

    def update(self, prediction: Any, target: Any, weight: np.ndarray | None = None) -> None:
        prediction, target, weight = self.rows(prediction, target, weight)
        scores = prediction.reshape(len(prediction), -1).astype(np.float64)  # a copy
        if self.threshold is not None:
            true = target.reshape(scores.shape) > YES
        else:
            true = labels_of(prediction, target)[:, None] == np.arange(scores.shape[1])
            if scores.shape[1] == 2:
                scores, true = scores[:, 1:] - scores[:, :1], true[:, 1:]
            else:
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                scores /= scores.sum(axis=1, keepdims=True)
        self._batches = (*self._batches, (scores, true, weight))

    def result(self) -> float:
        if not self._batches:
            return float("nan")
        scores, true, weight = (np.concatenate(parts) for parts in zip(*self._batches))
        areas = np.array([_area(scores[:, k], true[:, k], weight) for k in range(scores.shape[1])])
        known = ~np.isnan(areas)
        return float(areas[known].mean()) if known.any() else float("nan")


def _area(scores: np.ndarray, true: np.ndarray, weight: np.ndarray) -> float:
    """Of scores (N,); NaN if all are true, or none, or one is NaN."""
    if np.isnan(scores).any():
        return float("nan")
    values, place = np.unique(scores, return_inverse=True)
    yes, no = (np.bincount(place[which], weight[which], len(values)) for which in (true, ~true))
    below = np.cumsum(no) - no / 2
    pairs = yes.sum() * no.sum()
    return float((yes @ below) / pairs) if pairs > 0 else float("nan")
