"""Means and variances on plain arrays, of a whole batch or of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from nbnet.backend import Backend, get_backend
from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.kernels import chunks


class Stats(NamedTuple):
    """Statistics of some rows: mean (C,) and m2 = sum w * (x - mean)^2 (C,), both float64, and count, the sum of the weights."""

    mean: np.ndarray
    m2: np.ndarray
    count: float  # type: ignore[assignment]  # hides tuple.count, on purpose

    def variance(self, ddof: float = 0) -> np.ndarray:
        """m2 / (count - ddof): biased with ddof 0, unbiased with 1."""
        return self.m2 / (self.count - ddof)


def moments(x, axes, keepdims: bool = False, weights=None, *, backend: str | Backend = "parallel"):
    """Mean and biased variance over some axes.

    Args:
        x: float32 or float64. axes: one axis or several. weights: an array that broadcasts against x, all at least 0.
    Returns:
        mean, variance in x's dtype; accumulated in float64.
    Raises:
        ArgumentError: an axis does not exist or is given twice, or the weights of a result are negative or sum to 0.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x")
    axes = (axes,) if np.isscalar(axes) else tuple(axes)
    reduced = sorted(a + x.ndim if a < 0 else a for a in axes)
    if len(set(reduced)) != len(reduced) or any(not 0 <= a < x.ndim for a in reduced):
        raise ArgumentError(f"axes {axes} of an array with shape {x.shape}: wanted different axes from {-x.ndim} to {x.ndim - 1}")
    kept = [a for a in range(x.ndim) if a not in reduced]
    columns = math.prod(x.shape[a] for a in kept)
    rows = np.ascontiguousarray(x.transpose(reduced + kept).reshape(-1, columns))
    shape = tuple(1 if a in reduced else n for a, n in enumerate(x.shape)) if keepdims else tuple(x.shape[a] for a in kept)
    if weights is None:
        stats = _stats(rows, None, be)
        mean, var = stats.mean, stats.variance()
    else:
        w = np.broadcast_to(np.asarray(weights, np.float64), x.shape).transpose(reduced + kept).reshape(rows.shape)
        total = w.sum(axis=0)
        if (w < 0).any() or not (total > 0).all():
            raise ArgumentError("weights must be at least 0 and must not sum to 0")
        wide = rows.astype(np.float64)
        mean = (w * wide).sum(axis=0) / total
        var = (w * (wide - mean) ** 2).sum(axis=0) / total
    return mean.astype(x.dtype).reshape(shape), var.astype(x.dtype).reshape(shape)


def batch_norm_stats(x, weights=None, *, backend: str | Backend = "parallel") -> Stats:
    """Statistics of each channel, over all axes but the last. There may be no rows: the count is then 0.

    Args:
        x: (..., C) float32 or float64. weights: one for each of the M = x.size / C rows, at least 0.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", empty=True)
    if x.ndim < 2 or x.shape[-1] == 0:
        raise ShapeError(f"x has shape {x.shape}, wanted at least 2 axes (rows, channels)")
    rows = x.reshape(-1, x.shape[-1])
    return _stats(rows, row_weights(weights, len(rows), x.dtype), be)


def merge_stats(parts: Iterable[Stats]) -> Stats:
    """Statistics of all parts together, by Chan's formula (Chan, Golub and LeVeque 1979), in the order given. Parts may be empty."""
    parts = list(parts)
    if not parts:
        raise ArgumentError("merge_stats got no parts")
    mean, m2, count = np.zeros_like(parts[0].mean), np.zeros_like(parts[0].m2), 0.0
    for part in parts:
        if part.count > 0:
            delta = part.mean - mean
            total = count + part.count
            m2 = m2 + part.m2 + delta**2 * (count * part.count / total)
            mean = mean + delta * (part.count / total)
            count = total
    return Stats(mean, m2, count)


def row_weights(weights, rows: int, dtype: np.dtype) -> np.ndarray | None:
    """weights as (rows,) of the kernels' dtype.

    Raises:
        ShapeError: there is not one for each row. ArgumentError: one is negative or not finite.
    """
    if weights is None:
        return None
    flat = np.ascontiguousarray(weights, dtype).reshape(-1)
    if flat.size != rows:
        raise ShapeError(f"weights have shape {np.shape(weights)}, wanted {rows}: one for each row")
    if not ((flat >= 0) & (flat < np.inf)).all():
        raise ArgumentError("weights must be at least 0 and finite")
    return flat


def partials(be: Backend, rows: int, channels: int) -> np.ndarray:
    """Scratch of the batch-norm kernels that reduce."""
    return be.empty((chunks.count(max(rows, 1), channels), 3, channels), np.float64)


def _stats(rows: np.ndarray, weights: np.ndarray | None, be: Backend) -> Stats:
    count, channels = rows.shape
    total = float(count) if weights is None else float(weights.sum(dtype=np.float64))
    if total == 0:
        return Stats(np.zeros(channels), np.zeros(channels), 0.0)
    mean, var = np.empty(channels), np.empty(channels)
    be.kernel("batchnorm.moments")(rows, weights, partials(be, count, channels), mean, var)
    return Stats(mean, var * total, total)
