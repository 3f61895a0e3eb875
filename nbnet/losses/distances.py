"""Losses of distances between the outputs of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.losses.base import Loss


class Triplet(Loss):
    """max(0, |a - p| - |a - n| + margin) per row, with Euclidean distances of the features of three inputs: an anchor a, a positive p
    of the same class and a negative n of another one   (Schroff, Kalenichenko and Philbin 2015).

    For a model with the three as outputs, such as Sequential([Parallel([trunk, trunk, trunk])]) with inputs x = (anchors, positives,
    negatives). The targets are ignored; pass any numbers, one for each row: y = np.zeros(len(anchors)).

    Args:
        margin: how much farther the negative should be, above 0. reduction: "mean" or "sum" over the rows.
    """

    name = "triplet"

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = checks.number(margin, "margin", "a finite number above 0", lambda margin: 0 < margin < math.inf)

    def of_rows(self, prediction: Any, target: Any) -> tuple[np.ndarray, Any]:
        """See Loss.

        Args:
            prediction: three arrays (M, ...) of one shape. target: is not used.
        Raises:
            ShapeError: it is something else.
        """
        shapes = [part.shape for part in prediction] if type(prediction) is tuple else [prediction.shape]
        if len(shapes) != 3 or len(set(shapes)) > 1:
            got = ", ".join(map(str, shapes))
            raise ShapeError(f"the loss {self.name} got outputs of shape {got}, expected three of one shape: anchor, positive, negative")
        anchor, positive, negative = (part.reshape(len(part), -1).astype(np.float64) for part in prediction)
        (near, towards), (far, away) = _distance(anchor, positive), _distance(anchor, negative)
        losses = np.maximum(near - far + self.margin, 0)
        losses[np.isnan(near - far)] = np.nan
        active = (losses > 0)[:, None]
        slopes = active * (towards - away), active * -towards, active * away
        return losses, tuple([slope.reshape(shapes[0]) for slope in slopes])


def _distance(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|a - b| of each row, (M,), and its derivative with respect to a, (M, F): 0 where the distance is."""
    d = a - b
    size = np.sqrt((d * d).sum(axis=1))
    return size, np.divide(d, size[:, None], out=np.zeros(d.shape), where=size[:, None] > 0)


triplet = Triplet()
