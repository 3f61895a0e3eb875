"""Feature scaling."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbnet.errors import BuildError, ShapeError
from nbnet.functional import Stats, batch_norm_stats, checks, merge_stats


class StandardScaler:
    """Scale each feature (the last axis) to mean 0 and deviation 1: (x - mean) / deviation, with the biased deviation.

    A constant feature is only centred, so it stays finite. Statistics are float64, merged over batches by Chan's formula.
    Attributes: mean (C,), variance (C,), count.
    """

    def __init__(self) -> None:
        self._stats: Stats | None = None

    def fit(self, x: Any) -> StandardScaler:
        """Compute mean and deviation of x (..., C), replacing earlier ones. Returns self."""
        self._stats = batch_norm_stats(checks.floats(x, "x"))
        return self

    def partial_fit(self, x: Any) -> StandardScaler:
        """Add one more batch: the result is that of one fit over all batches together. Returns self."""
        stats = batch_norm_stats(checks.floats(x, "x"))
        if self._stats is not None and stats.mean.shape != self._stats.mean.shape:
            raise ShapeError(f"x has {len(stats.mean)} features, but the batches before had {len(self._stats.mean)}")
        self._stats = stats if self._stats is None else merge_stats([self._stats, stats])
        return self

    @property
    def mean(self) -> np.ndarray:
        return self._fitted().mean

    @property
    def variance(self) -> np.ndarray:
        return self._fitted().variance()

    @property
    def count(self) -> int:
        return int(self._fitted().count)

    def transform(self, x: Any) -> np.ndarray:
        """(x - mean) / deviation, in x's dtype."""
        x = self._check(x)
        return ((x - self.mean) / self._deviation()).astype(x.dtype)

    def inverse_transform(self, y: Any) -> np.ndarray:
        """y * deviation + mean, in y's dtype."""
        y = self._check(y)
        return (y * self._deviation() + self.mean).astype(y.dtype)

    def _deviation(self) -> np.ndarray:
        """The deviation; 1 for features whose deviation is only rounding."""
        deviation = np.sqrt(self.variance)
        return np.where(deviation > 10 * np.finfo(np.float64).eps * np.abs(self.mean), deviation, 1.0)

    def _fitted(self) -> Stats:
        if self._stats is None:
            raise BuildError("this StandardScaler has seen no data: call fit(x) first")
        return self._stats

    def _check(self, x: Any) -> np.ndarray:
        x = checks.floats(x, "x")
        if x.shape[-1:] != self.mean.shape:
            raise ShapeError(f"x has shape {x.shape}, expected (..., {len(self.mean)}) as in fit")
        return x
