"""What a loss is: a call that gives the loss with its gradient, and a check of its targets."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError, DTypeError, ShapeError
from nbnet.functional import checks
from nbnet.preprocessing import check_sample_weight, check_targets
from nbnet.runtime.arrays import each, first
from nbnet.runtime.backend import Backend, get_backend


class LossResult(NamedTuple):
    """What a loss returns for a batch of M rows."""

    total: float  # sum of the losses of the rows, each times its weight
    correct: int | None  # rows whose largest output is at the label; None for regression
    gradient: Any  # of total / rows with respect to the prediction: its shape and dtype, where the backend computes


class Started(NamedTuple):
    """A loss that may still be computed on the GPU, where the host need not wait for it.

    Attributes:
        gradient: as in LossResult.
        arrays: what `finish` needs, where the backend computes; those of float64 are losses of rows, and the total is not finite only if
            they are not. Empty if there is nothing to wait for.
        finish: (copies of the arrays on the host) -> total and correct, as in LossResult.
    """

    gradient: Any
    arrays: tuple[Any, ...]
    finish: Callable[[Sequence[np.ndarray]], tuple[float, int | None]]


def start(loss: Any, prediction: Any, target: Any, **options: Any) -> Started:
    """Begin to compute a loss: what `loss(prediction, target, **options)` does, without waiting for it where the loss can.

    Raises:
        ArgumentError, ShapeError, DTypeError: as `check_result`; and what the loss raises.
    """
    if type(loss).__call__ is not Loss.__call__:
        result = check_result(loss(prediction, target, **options), prediction, loss)
        return Started(result.gradient, (), lambda arrays: (result.total, result.correct))
    started: Started = loss._start(prediction, target, **options)
    _check_gradients(started.gradient, prediction, name_of(loss))
    return started


def check_call(loss: Callable[..., Any], name: str, weights: bool = False) -> None:
    """Check that a loss takes what training gives it.

    Args:
        weights: whether that includes sample_weight.
    Raises:
        ArgumentError: it has other arguments.
    """
    given, more = ({"sample_weight": None}, "sample_weight, ") if weights else ({}, "")
    try:
        inspect.signature(loss).bind(None, None, rows=None, backend=None, **given)
    except TypeError as error:
        raise ArgumentError(
            f"the loss {name} does not take what training gives it ({error}): expected def loss(prediction, target, *, {more}rows, backend)"
        ) from None
    except ValueError:  # it is not written in Python: the call will tell
        pass


def check_result(result: Any, prediction: Any, loss: Loss) -> LossResult:
    """Check what a loss returned for a prediction.

    Raises:
        ArgumentError: it is not a LossResult. ShapeError, DTypeError: its gradient is not like the prediction.
    """
    name = name_of(loss)
    if not isinstance(result, LossResult):
        raise ArgumentError(f"the loss {name} returned {type(result).__name__}, expected nb.losses.LossResult(total, correct, gradient)")
    total, correct, gradient = result
    if not checks.is_number(total) or not (correct is None or checks.is_number(correct)):
        raise ArgumentError(
            f"the loss {name} returned total={type(total).__name__} and correct={type(correct).__name__}, expected numbers "
            "(correct may be None): total is the sum over the rows, as in losses.sum()"
        )
    _check_gradients(gradient, prediction, name)
    return result


def _check_gradients(gradient: Any, prediction: Any, name: str) -> None:
    if type(prediction) is not tuple:
        _check_gradient(gradient, prediction, name)
        return
    if type(gradient) is not tuple or len(gradient) != len(prediction):
        raise ShapeError(f"the loss {name} returned a gradient that is not a tuple of {len(prediction)} arrays, one for each output")
    for one, output in zip(gradient, prediction):
        _check_gradient(one, output, name)


def _check_gradient(gradient: Any, prediction: Any, name: str) -> None:
    shape, dtype = getattr(gradient, "shape", None), getattr(gradient, "dtype", None)
    if shape != prediction.shape:
        raise ShapeError(f"the loss {name} returned a gradient of shape {shape}, expected that of the prediction, {prediction.shape}")
    if dtype != prediction.dtype:
        raise DTypeError(
            f"the loss {name} returned a gradient of dtype {dtype}, expected {prediction.dtype}: use gradient.astype(prediction.dtype)"
        )


def name_of(loss: Any) -> str:
    """What messages call a loss."""
    return getattr(loss, "name", "") or type(loss).__name__


def counted_rows(loss: Any, target: Any) -> np.ndarray | None:
    """Which rows a loss counts, (M,) bool; None if it counts all. It may be any object that is called like a loss."""
    counted = getattr(loss, "counted", None)
    return None if counted is None else counted(target)


def count_rows(loss: Any, target: Any) -> int:
    """How many rows a loss counts."""
    counted = counted_rows(loss, target)
    return len(first(target)) if counted is None else int(np.count_nonzero(counted))


def divisor(loss: Any, count: int) -> int:
    """What the sum over so many counted rows is divided by: 1 for a loss that is a sum, or if no row counts."""
    return 1 if getattr(loss, "reduction", "mean") == "sum" else count or 1


class Loss(CodeRepr):
    """Base class of losses. A subclass defines `of_rows`, and `check_targets` where not every finite number is a target.

    The loss of a batch is sum(w_i loss_i) / rows: sample weights w_i (1 without any) multiply the losses of the rows, and the sum is
    divided by the number of rows, as in Keras. (PyTorch divides class weights by their sum over the batch. Weights with mean 1, such as
    w / w.mean(), give that over the data set, and in a batch a step that does not depend on which rows it has.)

    Args:
        reduction: "mean", or "sum", which is not divided.
    """

    _package = "nbnet.losses"
    name = ""
    reduction = "mean"
    threshold: float | None = None  # for metrics: above it, an output says yes; None where the largest output of a row is its class

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in ("mean", "sum"):
            raise ArgumentError(f"reduction={reduction!r}: expected 'mean' or 'sum' over the rows")
        self.reduction = reduction

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

    def counted(self, target: Any) -> np.ndarray | None:
        """Which rows of a target count, (M,) bool: the others have no loss and no gradient, and are not among the rows that the sum is
        divided by. None if all count."""
        return None

    def of_rows(self, prediction: Any, target: Any) -> tuple[np.ndarray, Any]:
        """The loss of each row, in NumPy.

        Args:
            prediction: (M, ...) on the host; of several outputs a tuple. target: (M, ...).
        Returns:
            losses (M,), and the derivative of their sum with respect to the prediction, in its shape.
        """
        raise NotImplementedError(f"{type(self).__name__} has no of_rows(prediction, target): define it, or __call__")

    def __call__(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> LossResult:
        """The loss of a batch and its gradient, from one pass.

        Args:
            prediction: (M, ...) float32 or float64, what the model returns; of several outputs a tuple, and the gradient then too.
            target: (M, ...), rows of what check_targets returned.
            sample_weight: (M,) numbers of at least 0, which multiply the losses of the rows; None for 1.
            rows: the gradient is divided by it: by M, or 1 for reduction="sum", unless this is a part of a larger batch.
            backend: name or object.
        """
        be = get_backend(backend)
        started = self._start(prediction, target, sample_weight=sample_weight, rows=rows, backend=be)
        return LossResult(*started.finish(be.host(*started.arrays)), started.gradient)

    def _start(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> Started:
        """Compute the loss and its gradient, or launch what computes them. Args: as of a call."""
        be = get_backend(backend)
        placed = each(lambda part: checks.floats(part, "prediction", be=be), prediction)
        host = be.host(*placed) if type(placed) is tuple else be.host(placed)
        count = len(host[0])
        losses, slopes = self.of_rows(tuple(host) if type(placed) is tuple else host[0], target)
        losses = np.asarray(losses, np.float64)
        if losses.shape != (count,):
            raise ShapeError(
                f"of_rows of the loss {name_of(self)} returned losses of shape {losses.shape}, expected ({count},), one per row"
            )
        weights = np.ones(count) if sample_weight is None else check_sample_weight(sample_weight, count)
        factor = weights / (rows or divisor(self, count_rows(self, target)))

        def gradient(part: Any, slope: Any) -> Any:
            return be.place((np.asarray(slope).T * factor).T.astype(part.dtype))

        total = float(weights @ losses)
        return Started(each(gradient, placed, slopes), (), lambda arrays: (total, None))

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
    """A function f(prediction, target, *, rows, backend) -> LossResult as a loss; sample weights need the argument sample_weight."""

    def __init__(self, function: Callable[..., LossResult]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> LossResult:
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return self.function(prediction, target, rows=rows, backend=backend, **weights)
