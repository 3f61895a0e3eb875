"""Batch renormalisation (Ioffe 2017): small batches normalise nearly as evaluation will."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nbnet.code_repr import CodeRepr
from nbnet.errors import ArgumentError
from nbnet.functional import Correction, checks

Bound = float | Callable[[int], float]


@dataclass(frozen=True)
class _Ramp:
    """A bound that is `first` until the update `start`, and then goes in a straight line to `last` at the update `end`."""

    start: int
    end: int
    first: float
    last: float

    def __call__(self, t: int) -> float:
        return self.first + (self.last - self.first) * min(1.0, max(0.0, (t - self.start) / (self.end - self.start)))


@dataclass(frozen=True)
class _Inverse:
    """1 / bound."""

    bound: _Ramp

    def __call__(self, t: int) -> float:
        return 1 / self.bound(t)


@dataclass(frozen=True, repr=False)
class Renorm(CodeRepr):
    """xhat becomes xhat * r + k: r = clip(std / moving_std, rmin, rmax), k = clip((mean - moving_mean) / moving_std, +-dmax).

    r and k are constants to the gradient. The moving values are those before the batch's update.

    Args:
        rmax, rmin, dmax: bounds: numbers, or functions of the number of updates so far (a schedule; see `warm_up`).
        decay: of averages kept for r and k alone, from 0 and 1, as Keras, TensorFlow 1 and tf_slim have them (their default is
            0.99); None uses the layer's moving values, as the paper does.
    """

    rmax: Bound = math.inf
    rmin: Bound = 0.0
    dmax: Bound = math.inf
    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None:
            checks.number(self.decay, "Renorm: decay", "at least 0 and less than 1, or None", lambda decay: 0 <= decay < 1)
        self.bounds(0)

    @staticmethod
    def warm_up(start: int = 5000, r_end: int = 40000, d_end: int = 25000, rmax: float = 3.0, dmax: float = 5.0) -> Renorm:
        """The paper's schedule: plain batch norm until `start` updates, then rmax from 1 and dmax from 0 in straight lines."""
        r = _Ramp(start, r_end, 1.0, rmax)
        return Renorm(rmax=r, rmin=_Inverse(r), dmax=_Ramp(start, d_end, 0.0, dmax))

    def bounds(self, t: int) -> tuple[float, float, float]:
        """rmin, rmax, dmax at update t."""
        rmin, rmax, dmax = (bound(t) if callable(bound) else bound for bound in (self.rmin, self.rmax, self.dmax))
        if not (0 <= rmin <= rmax and dmax >= 0):
            raise ArgumentError(f"Renorm bounds rmin={rmin}, rmax={rmax}, dmax={dmax}: expected 0 <= rmin <= rmax and dmax >= 0")
        return rmin, rmax, dmax

    def correct(self, t: int, mean: np.ndarray, std: np.ndarray, moving_mean: np.ndarray, moving_std: np.ndarray) -> Correction:
        """r and k (C,) for a batch of this mean and deviation."""
        rmin, rmax, dmax = self.bounds(t)
        return Correction(np.clip(std / moving_std, rmin, rmax), np.clip((mean - moving_mean) / moving_std, -dmax, dmax))
