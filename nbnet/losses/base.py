"""What a loss is: a call that gives the loss with its gradient, and a check of its targets."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional import checks
from nbnet.preprocessing import check_targets
from nbnet.runtime.backend import Backend


class LossResult(NamedTuple):
    """What a loss returns for a batch of M rows."""

    total: float  # sum of the losses of the rows
    correct: int | None  # rows whose largest output is at the label; None for regression
    gradient: Any  # of total / rows with respect to the prediction: its shape and dtype, where the backend computes


def check_call(loss: Callable[..., Any], name: str) -> None:
    """Check that a loss takes what training gives it.

    Raises:
        ArgumentError: it has other arguments.
    """
    try:
        inspect.signature(loss).bind(None, None, rows=None, backend=None)
    except TypeError as error:
        raise ArgumentError(
            f"the loss {name} does not take what training gives it ({error}): expected def loss(prediction, target, *, rows, backend)"
        ) from None
    except ValueError:  # it is not written in Python: the call will tell
        pass


def check_result(result: Any, prediction: Any, loss: Loss) -> LossResult:
    """Check what a loss returned for a prediction.

    Raises:
        ArgumentError: it is not a LossResult. ShapeError, DTypeError: its gradient is not like the prediction.
    """
    name = getattr(loss, "name", "") or type(loss).__name__
    if not isinstance(result, LossResult):
        raise ArgumentError(f"the loss {name} returned {type(result).__name__}, expected nb.losses.LossResult(total, correct, gradient)")
    total, correct, gradient = result
    if not checks.is_number(total) or not (correct is None or checks.is_number(correct)):
        raise ArgumentError(
            f"the loss {name} returned total={type(total).__name__} and correct={type(correct).__name__}, expected numbers "
            "(correct may be None): total is the sum over the rows, as in losses.sum()"
        )
    if type(prediction) is not tuple:
        _check_gradient(gradient, prediction, name)
        return result
    if type(gradient) is not tuple or len(gradient) != len(prediction):
        raise ShapeError(f"the loss {name} returned a gradient that is no tuple of {len(prediction)} arrays, one for each output")
    for one, output in zip(gradient, prediction):
        _check_gradient(one, output, name)
    return result


def _check_gradient(gradient: Any, prediction: Any, name: str) -> None:
    shape, dtype = getattr(gradient, "shape", None), getattr(gradient, "dtype", None)
    if shape != prediction.shape:
        raise ShapeError(f"the loss {name} returned a gradient of shape {shape}, expected that of the prediction, {prediction.shape}")
    if dtype != prediction.dtype:
        raise DTypeError(
            f"the loss {name} returned a gradient of dtype {dtype}, expected {prediction.dtype}: use gradient.astype(prediction.dtype)"
        )


class Loss(CodeRepr):
    """Base class of losses. A subclass defines `__call__`, and `check_targets` where not every finite number is a target."""

    name = ""

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """Check the targets of a data set before training starts.

        Args:
            y: (N, ...), one target for each row of x.
            output_shape: of the model, for one row.
        Returns:
            y as training takes it, batch by batch; here an array of any real dtype.
        Raises:
            ShapeError, DTypeError, DataError: y is not an array of numbers, or does not fit the model.
            NonFiniteError: NaN or infinity; the message names the first.
        """
        return check_targets(y)

    def __call__(self, prediction: Any, target: Any, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
        """The loss of a batch and its gradient, from one pass.

        Args:
            prediction: (M, ...) float32 or float64, what the model returns; of several outputs a tuple, and the gradient then too.
            target: (M, ...), rows of what check_targets returned.
            rows: the gradient is divided by it: M, unless this is a part of a larger batch.
            backend: name or object.
        """
        raise NotImplementedError

    @property
    def _standard(self) -> bool:
        """Whether this is the object of that name in nbnet.losses."""
        return bool(self.name) and getattr(sys.modules.get("nbnet.losses"), self.name, None) is self

    def __repr__(self) -> str:
        return f"nb.losses.{self.name}" if self._standard else super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A copy of a standard loss is that loss."""
        return self.name if self._standard else super().__reduce_ex__(protocol)


class FunctionLoss(Loss):
    """A function f(prediction, target, *, rows, backend) -> LossResult as a loss."""

    def __init__(self, function: Callable[..., LossResult]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, prediction: Any, target: Any, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
        return self.function(prediction, target, rows=rows, backend=backend)
