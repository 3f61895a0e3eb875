"""Losses: each is a loss per row, averaged over the rows, with its gradient from the same pass, and checks its own targets."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ArgumentError, unknown
from nbnet.losses.base import FunctionLoss, Loss, LossResult, check_call, count_rows, counted_rows, divisor
from nbnet.losses.cross_entropy import KLDivergence, SoftmaxCrossEntropy, kl_divergence, softmax_cross_entropy
from nbnet.losses.distances import Triplet, triplet
from nbnet.losses.elementwise import (
    BinaryCrossEntropy,
    Elementwise,
    Focal,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    SumSquaredError,
    binary_cross_entropy,
    focal,
    hinge,
    huber,
    mean_absolute_error,
    mean_squared_error,
    sum_squared_error,
)
from nbnet.losses.several import PerOutput, check_outputs

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        softmax_cross_entropy,
        binary_cross_entropy,
        mean_squared_error,
        sum_squared_error,
        mean_absolute_error,
        huber,
        kl_divergence,
        hinge,
        focal,
        triplet,
    )
}

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Elementwise",
    "Focal",
    "FunctionLoss",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Loss",
    "LossResult",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "PerOutput",
    "SoftmaxCrossEntropy",
    "SumSquaredError",
    "Triplet",
    "binary_cross_entropy",
    "check_call",
    "check_outputs",
    "count_rows",
    "counted_rows",
    "divisor",
    "focal",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "mean_absolute_error",
    "mean_squared_error",
    "softmax_cross_entropy",
    "sum_squared_error",
    "triplet",
]


def get(loss: Any) -> Loss:
    """The loss of that name, the object itself, or a loss made of a function.

    Args:
        loss: a name in LOSSES, an object like nbnet.losses.Loss (callable, with check_targets), or a function
            f(prediction, target, *, rows, backend) -> LossResult, whose targets may be any finite numbers; with sample weights it gets
            sample_weight too. A tuple or list of these is one for each output of a model, whose losses are added.
    Raises:
        ArgumentError: it is none of these.
    """
    if isinstance(loss, type):
        raise ArgumentError(f"loss={loss.__name__}: expected a loss object, got a class; use loss={loss.__name__}()")
    if callable(loss):
        made = loss if hasattr(loss, "check_targets") else FunctionLoss(loss)
        check_call(loss, getattr(made, "name", "") or type(loss).__name__)
        return made
    if isinstance(loss, (tuple, list)) and loss:
        return PerOutput(tuple(map(get, loss)))
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ArgumentError(unknown("loss", loss, LOSSES))
    return LOSSES[loss]
