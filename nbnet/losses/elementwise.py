"""Losses that are a sum or mean over the outputs of a row: rows of the table in nbnet.kernels.loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, DataError, ShapeError
from nbnet.functional import checks
from nbnet.losses.base import Loss, Started, divisor
from nbnet.preprocessing import check_sample_weight
from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend, get_backend


class Elementwise(Loss):
    """Base of losses whose outputs each have a target and a loss of their own; the loss of a row is their mean.

    Args:
        reduction: "mean" or "sum" over the rows.
    """

    kernel = ""  # of nbnet.kernels.loss
    mean = True  # over the outputs of a row, or the sum
    targets = ""  # what they must be, other than finite: "from 0 to 1", "0 or 1"

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """y as an array of numbers (N, *output_shape), or (N,) where the model has one output.

        Raises:
            ShapeError: y has another shape. DTypeError: y is not numbers. NonFiniteError: NaN or infinity.
            DataError: a number is not in the range of the targets.
        """
        y = super().check_targets(y, output_shape)
        expected = (len(y), *output_shape)
        if y.shape != expected and not y.size == math.prod(expected) == len(y):
            hint = "; for labels use loss='softmax_cross_entropy', for one value per row nb.Dense(1) as the last layer"
            raise ShapeError(f"targets have shape {y.shape}, expected {expected}: one value per output{hint if y.size == len(y) else ''}")
        wrong = None if not self.targets else (y < 0) | (y > 1) if self.targets == "from 0 to 1" else ~self._is_sign(y)
        if wrong is not None and wrong.any():
            first = np.unravel_index(wrong.argmax(), y.shape)
            place = ", ".join(map(str, first))
            raise DataError(f"target {y[first]} at [{place}] does not fit the loss {self.name}: expected numbers {self.targets}")
        return y

    @staticmethod
    def _is_sign(y: np.ndarray) -> np.ndarray:
        return (y == 0) | (y == 1)

    def options(self) -> tuple[float, ...]:
        """The options of the kernel."""
        return ()

    def weighted(self, target: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """For targets (M, ...): those that the kernel takes instead, and weights of the outputs, (M, D); None for 1."""
        return None

    def _start(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> Started:
        """See Loss.

        Args:
            prediction: (M, ...), float32 or float64. target: numbers of the same shape, or (M,) where there is one output.
        Raises:
            ShapeError, DTypeError: an array does not fit.
        """
        be = get_backend(backend)
        prediction = checks.floats(prediction, "prediction", be=be)
        count, dtype = len(prediction), prediction.dtype
        target = target if on_device(target) else np.asarray(target, dtype)
        if target.shape != prediction.shape and target.size == prediction.size == count:
            target = target.reshape(prediction.shape)
        if target.shape != prediction.shape:
            raise ShapeError(f"targets have shape {target.shape}, expected {prediction.shape}: one value per output")
        weights = np.ones((1, 1), dtype) if sample_weight is None else check_sample_weight(sample_weight, count)[:, None]
        if (changed := self.weighted(target)) is not None:
            target, weights = changed[0].astype(dtype), weights * changed[1]
        target = be.place(target)
        flat = prediction.reshape(count, -1)
        losses = be.empty((count,), np.float64)
        gradient = be.empty(prediction.shape, dtype)
        arrays = flat, target.reshape(flat.shape), be.place(weights.astype(dtype, copy=False))
        weight, scale = 1 / flat.shape[1] if self.mean else 1.0, 1 / (rows or divisor(self, count))
        be.kernel(f"loss.{self.kernel}")(*arrays, *self.options(), weight, scale, losses, gradient.reshape(flat.shape))
        return Started(gradient, (losses,), lambda arrays: (float(arrays[0].sum()), None))


class MeanSquaredError(Elementwise):
    """The mean of (prediction - target)^2 over the outputs of a row.

    Args:
        reduction: "mean" or "sum" over the rows.
    """

    name = "mean_squared_error"
    kernel = "squared_error"


class SumSquaredError(MeanSquaredError):
    """The sum of (prediction - target)^2 over the outputs of a row.

    Args:
        reduction: "mean" or "sum" over the rows.
    """

    name = "sum_squared_error"
    mean = False


class MeanAbsoluteError(Elementwise):
    """The mean of |prediction - target| over the outputs of a row. Its derivative at 0 is 0.

    Args:
        reduction: "mean" or "sum" over the rows.
    """

    name = "mean_absolute_error"
    kernel = "absolute_error"


class Huber(Elementwise):
    """The mean over the outputs of a row of d^2 / 2, with d = prediction - target, where |d| <= delta, else delta (|d| - delta / 2)
    (Huber 1964).

    Args:
        delta: above 0. reduction: "mean" or "sum" over the rows.
    """

    name = "huber"
    kernel = "huber"

    def __init__(self, delta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.delta = checks.number(delta, "delta", "a finite number above 0", lambda delta: 0 < delta < math.inf)

    def options(self) -> tuple[float, ...]:
        return (self.delta,)


class BinaryCrossEntropy(Elementwise):
    """-t log p - (1 - t) log(1 - p), for targets t from 0 to 1 and probabilities p = sigmoid(logit): the mean over the outputs of a row,
    each of which is a separate yes-or-no question.

    Args:
        from_logits: whether the model gives logits, before any sigmoid. For probabilities the logarithms are at least -100, and
            the derivative is (p - t) / max(p (1 - p), 1e-12), as in PyTorch.
        pos_weight: multiplies the part with t: a number of at least 0, or one for each output (for each channel of an image).
        reduction: "mean" or "sum" over the rows.
    """

    name = "binary_cross_entropy"
    targets = "from 0 to 1"

    def __init__(self, from_logits: bool = True, pos_weight: float | Sequence[float] | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.from_logits = bool(from_logits)
        self.kernel = "binary_cross_entropy" if from_logits else "binary_cross_entropy_of_probabilities"
        self.threshold = 0.0 if from_logits else 0.5
        self.pos_weight: float | tuple[float, ...] | None = None
        if pos_weight is not None:
            found = np.asarray(pos_weight)
            if found.ndim > 1 or found.dtype.kind not in "iuf" or not (np.isfinite(found).all() and (found >= 0).all()):
                raise ArgumentError(f"pos_weight={pos_weight!r}: expected a finite number of at least 0, or one for each output")
            self.pos_weight = tuple(map(float, found)) if found.ndim else float(found)

    def check_targets(self, y: Any, output_shape: tuple[int, ...]) -> np.ndarray:
        """See Elementwise. Raises ArgumentError: pos_weight has not one number for each output."""
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != output_shape[-1]:
            raise ArgumentError(f"pos_weight has {len(self.pos_weight)} numbers, expected {output_shape[-1]}, one for each output")
        return super().check_targets(y, output_shape)

    def weighted(self, target: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """a t and 1 - t are weights w = a t + 1 - t times t' = a t / w and 1 - t'."""
        if self.pos_weight is None:
            return None
        target = np.asarray(target, np.float64)
        positive = target * self.pos_weight
        weights = positive + (1 - target)
        return np.divide(positive, weights, out=np.zeros(target.shape), where=weights > 0), weights.reshape(len(target), -1)


class Hinge(Elementwise):
    """max(0, 1 - t y) for targets t of -1 or 1: the mean over the outputs of a row. A target of 0 is taken as -1.

    Args:
        reduction: "mean" or "sum" over the rows.
    """

    name = "hinge"
    kernel = "hinge"
    targets = "-1 or 1 (or 0 or 1)"
    threshold = 0.0

    @staticmethod
    def _is_sign(y: np.ndarray) -> np.ndarray:
        return (y == -1) | (y == 0) | (y == 1)


class Focal(Elementwise):
    """-a (1 - p)^gamma log p, where p is the probability of the right answer: sigmoid(logit) for a target of 1, sigmoid(-logit) for 0;
    the mean over the outputs of a row   (Lin et al. 2017).

    Args:
        gamma: at least 0: how much less confident answers count; with 0 this is BinaryCrossEntropy.
        alpha: from 0 to 1: a is alpha for a target of 1, else 1 - alpha; None for a = 1.
        reduction: "mean" or "sum" over the rows.
    """

    name = "focal"
    kernel = "focal"
    targets = "0 or 1"
    threshold = 0.0

    def __init__(self, gamma: float = 2.0, alpha: float | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.gamma = checks.number(gamma, "gamma", "a finite number of at least 0", lambda gamma: 0 <= gamma < math.inf)
        self.alpha = None if alpha is None else checks.number(alpha, "alpha", "a number from 0 to 1, or None", lambda a: 0 <= a <= 1)

    def options(self) -> tuple[float, ...]:
        return (self.gamma,)

    def weighted(self, target: Any) -> tuple[np.ndarray, np.ndarray] | None:
        if self.alpha is None:
            return None
        target = np.asarray(target)
        return target, np.where(target > 0, self.alpha, 1 - self.alpha).reshape(len(target), -1)


mean_squared_error = MeanSquaredError()
sum_squared_error = SumSquaredError()
mean_absolute_error = MeanAbsoluteError()
huber = Huber()
binary_cross_entropy = BinaryCrossEntropy()
hinge = Hinge()
focal = Focal()
