"""The losses of regression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.losses.base import Loss, LossResult
from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend, get_backend


class SquaredError(Loss):
    """The mean or the sum of (prediction - target)^2 over the outputs of a row. As with every loss here, rows are averaged.

    Args:
        mean: whether to divide by the number of outputs.
    """

    def __init__(self, mean: bool) -> None:
        self.mean = mean
        self.name = "mean_squared_error" if mean else "sum_squared_error"

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """y as an array of numbers (N, *output_shape), or (N,) where the model has one output.

        Raises:
            ShapeError: y has another shape. DTypeError: y is not numbers. NonFiniteError: NaN or infinity.
        """
        y = super().check_targets(y, output_shape)
        expected = (len(y), *output_shape)
        if y.shape != expected and not y.size == math.prod(expected) == len(y):
            hint = "; for labels use loss='softmax_cross_entropy', for one value per row nb.Dense(1) as the last layer"
            raise ShapeError(f"targets have shape {y.shape}, expected {expected}: one value per output{hint if y.size == len(y) else ''}")
        return y

    def __call__(self, prediction: Any, target: Any, *, rows: int | None = None, backend: str | Backend = "parallel") -> LossResult:
        """See Loss.

        Args:
            prediction: (M, ...), float32 or float64. target: numbers of the same shape, or (M,) where there is one output.
        Raises:
            ShapeError, DTypeError: an array does not fit.
        """
        be = get_backend(backend)
        prediction = checks.floats(prediction, "prediction", be=be)
        count = len(prediction)
        target = be.place(target if on_device(target) else np.asarray(target, prediction.dtype))
        if target.shape != prediction.shape and target.size == prediction.size == count:
            target = target.reshape(prediction.shape)
        if target.shape != prediction.shape:
            raise ShapeError(f"targets have shape {target.shape}, expected {prediction.shape}: one value per output")
        flat = prediction.reshape(count, -1)
        losses = be.empty((count,), np.float64)
        gradient = be.empty(prediction.shape, prediction.dtype)
        weight = 1 / flat.shape[1] if self.mean else 1.0
        be.kernel("loss.squared_error")(flat, target.reshape(flat.shape), weight, 1 / (rows or count), losses, gradient.reshape(flat.shape))
        (losses,) = be.host(losses)
        return LossResult(float(losses.sum()), None, gradient)


mean_squared_error = SquaredError(mean=True)
sum_squared_error = SquaredError(mean=False)
