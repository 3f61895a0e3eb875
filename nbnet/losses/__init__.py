"""Losses: each is a loss per row, averaged over the rows, with its gradient from the same pass, and checks its own targets."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ArgumentError, unknown
from nbnet.losses.base import FunctionLoss, Loss, LossResult, check_call
from nbnet.losses.cross_entropy import SoftmaxCrossEntropy, softmax_cross_entropy
from nbnet.losses.several import PerOutput, check_outputs
from nbnet.losses.squared_error import SquaredError, mean_squared_error, sum_squared_error

LOSSES: dict[str, Loss] = {loss.name: loss for loss in (softmax_cross_entropy, mean_squared_error, sum_squared_error)}

__all__ = [
    "LOSSES",
    "FunctionLoss",
    "Loss",
    "LossResult",
    "PerOutput",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "check_outputs",
    "get",
    "mean_squared_error",
    "softmax_cross_entropy",
    "sum_squared_error",
]


def get(loss: Any) -> Loss:
    """The loss of that name, the object itself, or a loss made of a function.

    Args:
        loss: a name in LOSSES, an object like nbnet.losses.Loss (callable, with check_targets), or a function
            f(prediction, target, *, rows, backend) -> LossResult, whose targets may be any finite numbers. A tuple or list of these
            is one for each output of a model, whose losses are added.
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
