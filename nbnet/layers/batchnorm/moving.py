"""Moving statistics: arithmetic on C numbers, and what each framework does differently in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.runtime.backend import Backend
from nbnet.runtime.watched import Watched

Buffers = dict[str, Any]

TRACKS = {"variance": "moving_var", "deviation": "moving_std"}
ZERO_DEBIAS = (False, "mean", True)


class MovingStatistics(Watched):
    """How the moving mean and variance are updated from the batches. The values are buffers of the layer.

    With d the weight of the old value:  moving <- d * moving + (1 - d) * batch.

    Args:
        decay: d, or None for the cumulative average (d = 1 - 1/t at update t).
        warm_decay: d_t = min(decay, (1 + t) / (10 + t)) at update t = 0, 1, ...   (tf.train.ExponentialMovingAverage, num_updates).
        track: "variance", or "deviation": sqrt(variance + eps) is averaged, and evaluation divides by it with no further eps.
        zero_debias: averages start at 0 and are divided by 1 - (product of d so far): True for both; "mean" for the mean alone,
            as TensorFlow has it (its variance starts at `initial_var` and stays biased towards it: 10.4 instead of 100 after 100 steps
            of decay 0.999).
        initial_var: the moving variance at the start.
        eps: added to the variance before its square root, for the deviation.
    """

    def __init__(self, decay: float | None, warm_decay: bool, track: str, zero_debias: bool | str, initial_var: float, eps: float) -> None:
        if decay is not None:
            expected = "the weight of the old moving value, from 0 to 1, or None for the cumulative average"
            checks.number(decay, "decay", expected, lambda decay: 0 <= decay <= 1)
        if not isinstance(track, str) or track not in TRACKS:
            raise ArgumentError(f"track={track!r}: expected 'variance' or 'deviation'")
        if not isinstance(zero_debias, (bool, np.bool_, str)) or zero_debias not in ZERO_DEBIAS:
            raise ArgumentError(f"zero_debias={zero_debias!r}: expected False, True (mean and variance) or 'mean' (TensorFlow's)")
        if decay is None and (warm_decay or zero_debias):
            raise ArgumentError("decay=None is the exact mean of all batches and has no warm_decay or zero_debias: leave them out")
        if not initial_var >= 0:
            raise ArgumentError(f"initial_var={initial_var!r}: expected a number that is at least 0")
        self.decay = decay
        self.warm_decay = warm_decay
        self.spread = TRACKS[track]  # the buffer that holds the moving variance or deviation
        self.zero_debias = zero_debias if zero_debias == "mean" else bool(zero_debias)
        self.initial_var = initial_var
        self.eps = eps

    def create(self, add_buffer: Callable[..., None], channels: int, dtype: np.dtype | None) -> None:
        """Make the buffers of a layer, by its `add_buffer`; dtype None is the layer's."""
        add_buffer("moving_mean", np.zeros(channels), dtype)
        add_buffer(self.spread, np.full(channels, self.initial_var), dtype)
        add_buffer("updates", [0], np.int64, on_host=True)
        if self.zero_debias:
            add_buffer("decay_product", [1.0], np.float64, on_host=True)
            add_buffer("biased_mean", np.zeros(channels), dtype)
        if self.zero_debias is True:
            add_buffer("biased_spread", np.zeros(channels), dtype)

    def update(self, buffers: Buffers, mean: Any, m2: Any, divisor: Any, be: Backend) -> None:
        """Update the moving values with the mean and variance m2 / divisor (C,) of a batch."""
        d: Any = self._next_decay(int(buffers["updates"][0]))
        if be.name == "cuda" and not self.steady and not self.zero_debias:  # in an array that a recorded step uploads each time
            d = np.empty(mean.size, np.float64)
            be.run(self._write_decay, buffers["updates"], d)
        be.channelwise(_next, (buffers["updates"],), buffers["updates"])
        follow = _follow_deviation if self.spread == "moving_std" else _follow_variance
        targets = buffers.get("biased_mean", buffers["moving_mean"]), buffers.get("biased_spread", buffers[self.spread])
        be.channelwise(follow, targets, *targets, mean, m2, divisor, d, self.eps)
        if self.zero_debias:
            buffers["decay_product"] *= d
            weight, sources = 1 - buffers["decay_product"][0], list(targets)
            if not weight > 0:  # all decays so far were 1: there is no average yet, only this batch
                weight, sources = 1.0, be.vectors(2, mean.size, np.float64)
                be.channelwise(follow, sources, mean, m2, mean, m2, divisor, 0.0, self.eps)
            for moving, target, source in zip(("moving_mean", self.spread), targets, sources):
                if target is not buffers[moving]:
                    be.channelwise(_debiased, (buffers[moving],), source, weight)

    @property
    def steady(self) -> bool:
        """Whether every update is the same computation, so that replay can repeat it."""
        return self.decay is not None and not self.warm_decay and not self.zero_debias

    def can_repeat(self, backend: Backend) -> bool:
        """Whether replay can repeat an update on this backend."""
        return self.steady or (backend.name == "cuda" and not self.zero_debias)

    def _write_decay(self, updates: np.ndarray, decays: np.ndarray) -> None:
        decays[:] = self._next_decay(int(updates[0]))

    def _next_decay(self, t: int) -> float:
        if self.decay is None:
            return t / (t + 1)
        return min(self.decay, (1 + t) / (10 + t)) if self.warm_decay else self.decay

    def read(self, buffers: Buffers) -> tuple[np.ndarray, np.ndarray, float]:
        """Mean, variance and eps to evaluate with: y = (x - mean) / sqrt(variance + eps)."""
        if self.spread == "moving_std":
            return buffers["moving_mean"], np.asarray(buffers[self.spread], np.float64) ** 2, 0.0
        return buffers["moving_mean"], buffers[self.spread], self.eps

    def assign(self, buffers: Buffers, mean: np.ndarray, var: np.ndarray) -> None:
        """Set the moving values, as if one batch had been all the data; later updates go on from them."""
        buffers["moving_mean"][:] = mean
        buffers[self.spread][:] = np.sqrt(var + self.eps) if self.spread == "moving_std" else var
        if self.zero_debias:
            buffers["decay_product"][:] = 0
            buffers["biased_mean"][:] = buffers["moving_mean"]
        if self.zero_debias is True:
            buffers["biased_spread"][:] = buffers[self.spread]


def _next(updates: Any) -> Any:
    return (updates + 1,)


def _follow_variance(moving_mean: Any, moving_var: Any, mean: Any, m2: Any, divisor: Any, d: Any, eps: Any) -> Any:
    return d * np.float64(moving_mean) + (1 - d) * mean, d * np.float64(moving_var) + (1 - d) * (m2 / divisor)


def _follow_deviation(moving_mean: Any, moving_std: Any, mean: Any, m2: Any, divisor: Any, d: Any, eps: Any) -> Any:
    return d * np.float64(moving_mean) + (1 - d) * mean, d * np.float64(moving_std) + (1 - d) * (m2 / divisor + eps) ** 0.5


def _debiased(biased: Any, weight: Any) -> Any:
    return (biased / weight,)
