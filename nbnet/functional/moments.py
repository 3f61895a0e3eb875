"""Means and variances of plain arrays, for a whole batch or for its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.kernels import chunks
from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend, get_backend


class Stats(NamedTuple):
    """Statistics of some rows: mean (C,) and m2 = sum w * (x - mean)^2 (C,), both float64, on the GPU where x is there, and
    count, the sum of the weights: a number, or (C,) if each channel has its own weights."""

    mean: np.ndarray
    m2: np.ndarray
    count: float | np.ndarray  # type: ignore[assignment]  # hides tuple.count on purpose

    @property
    def least(self) -> float:
        """The smallest count of a channel."""
        return self.count if isinstance(self.count, float) else float(np.min(self.count))

    def variance(self, ddof: float = 0) -> np.ndarray:
        """m2 / (count - ddof): biased with ddof 0, unbiased with 1."""
        return np.asarray(self.m2) / (self.count - ddof)


def moments(
    x: Any, axes: Any, keepdims: bool = False, weights: Any = None, *, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance over some axes.

    Args:
        x: float32 or float64. axes: one axis or several. weights: an array that broadcasts against x, all at least 0; what has a weight
            of 0 has no influence, not even NaN or infinity.
    Returns:
        mean, variance in x's dtype; accumulated in float64.
    Raises:
        ArgumentError: an axis does not exist or is given twice, a weight is negative or not finite, or the weights of a result sum to 0.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be if on_device(x) else None)
    axes = (axes,) if np.isscalar(axes) else tuple(axes)
    reduced = sorted(a + x.ndim if a < 0 else a for a in axes)
    if len(set(reduced)) != len(reduced) or any(not 0 <= a < x.ndim for a in reduced):
        raise ArgumentError(f"axes {axes} of an array with shape {x.shape}: expected distinct axes from {-x.ndim} to {x.ndim - 1}")
    kept = [a for a in range(x.ndim) if a not in reduced]
    columns = math.prod(x.shape[a] for a in kept)
    if on_device(x) and reduced + kept == list(range(x.ndim)) and weights is None:
        rows = x.reshape(-1, columns)
    else:
        x = np.asarray(x)
        rows = np.ascontiguousarray(x.transpose(reduced + kept).reshape(-1, columns))
    shape = tuple(1 if a in reduced else n for a, n in enumerate(x.shape)) if keepdims else tuple(x.shape[a] for a in kept)
    if weights is None:
        stats = _stats(be.place(rows), None, be)
        mean, var = np.asarray(stats.mean), stats.variance()
    else:
        given = _checked(np.asarray(weights, np.float64))
        w = np.broadcast_to(given, x.shape).transpose(reduced + kept).reshape(rows.shape)
        total = w.sum(axis=0)
        if not (total > 0).all():
            raise ArgumentError("got weights that sum to 0, expected a sum above 0 for every result")
        wide = np.where(w > 0, rows, 0).astype(np.float64)
        mean = (w * wide).sum(axis=0) / total
        var = (w * (wide - mean) ** 2).sum(axis=0) / total
    return mean.astype(x.dtype).reshape(shape), var.astype(x.dtype).reshape(shape)


def batch_norm_stats(x: Any, weights: Any = None, *, backend: str | Backend = "parallel") -> Stats:
    """Statistics of each channel, over all axes but the last. There may be no rows: the count is then 0.

    Args:
        x: (..., C) float32 or float64. weights: one for each of the M = x.size / C rows, or for each element of x, at least 0.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", empty=True, be=be)
    if x.ndim < 2 or x.shape[-1] == 0:
        raise ShapeError(f"x has shape {x.shape}, expected at least 2 axes (rows, channels)")
    rows = x.reshape(-1, x.shape[-1])
    return _stats(rows, row_weights(weights, rows), be)


def merge_stats(parts: Iterable[Stats]) -> Stats:
    """Statistics of all parts together, by Chan's formula (Chan, Golub and LeVeque 1979), in the order given. Parts may be empty."""
    parts = list(parts)
    if not parts:
        raise ArgumentError("merge_stats got no parts")
    mean, m2 = np.zeros(parts[0].mean.shape), np.zeros(parts[0].m2.shape)
    count: float | np.ndarray = 0.0
    for part in parts:
        total = count + part.count
        share = part.count / np.where(total > 0, total, 1)  # 0 of nothing is 0
        delta = np.asarray(part.mean) - mean
        m2 = m2 + np.asarray(part.m2) + delta**2 * (count * share)
        mean = mean + delta * share
        count = total
    return Stats(mean, m2, count)


def row_weights(weights: Any, rows: np.ndarray) -> np.ndarray | None:
    """weights for rows (M, C) in the form of the kernels: (M, 1) or (M, C).

    Raises:
        ShapeError: there is not one per row, or per element. ArgumentError: one is negative or not finite.
    """
    if weights is None:
        return None
    count, channels = rows.shape
    w = np.ascontiguousarray(weights, rows.dtype)
    if w.size not in (count, count * channels):
        raise ShapeError(f"weights have shape {w.shape}, expected {count} of them, one per row, or {(count, channels)}, one per element")
    return _checked(w).reshape(count, w.size // count if count else 1)


def _checked(weights: np.ndarray) -> np.ndarray:
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise ArgumentError("got weights that are negative or not finite, expected finite weights of at least 0")
    return weights


def partials(be: Backend, rows: int, channels: int, columns: int = 1) -> Any:
    """Scratch of the batch-norm kernels that reduce `rows` rows of `columns` columns."""
    return be.scratch("partials", (chunks.count(max(rows, 1), channels * columns), 3, channels), np.float64)


def _stats(rows: np.ndarray, weights: np.ndarray | None, be: Backend) -> Stats:
    count, channels = rows.shape
    total: float | np.ndarray = float(count)
    if weights is not None:
        sums = weights.sum(axis=0, dtype=np.float64)
        total = float(sums[0]) if len(sums) == 1 else sums
    mean, m2 = be.vectors(2, channels, np.float64)
    if np.min(total) > 0:
        placed = None if weights is None else be.place(weights)
        be.kernel("batchnorm.moments")(rows, placed, partials(be, count, channels), mean, m2)
    elif np.max(total) > 0:
        raise ArgumentError(f"the weights of channel {int(np.argmin(total))} sum to 0, expected a sum above 0 in every channel")
    else:
        mean[...], m2[...] = 0, 0
    return Stats(mean, m2, total)
