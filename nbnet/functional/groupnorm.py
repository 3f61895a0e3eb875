"""Group and layer normalisation on plain arrays: statistics of each row alone, the same in training and evaluation.

Channels are the last axis. Formulas: Wu and He 2018 (group normalisation); Ba, Kiros and Hinton 2016 (layer normalisation).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.kernels import chunks
from nbnet.runtime.arrays import on_device
from nbnet.runtime.backend import Backend, get_backend


class GroupNormSaved(NamedTuple):
    x: np.ndarray
    rows: tuple[int, int, int]  # x seen as (rows, points of a row, channels)
    gamma: np.ndarray  # (C,) in x's dtype
    mean: np.ndarray  # (rows, groups) float64
    inv_std: np.ndarray  # (rows, groups) float64
    backend: Backend


def group_norm_forward(
    x: Any, gamma: Any, beta: Any, groups: int, *, eps: float = 1e-5, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, GroupNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, with a mean and a biased variance for each row and group of channels.

    Args:
        x: (N, ..., C) float32 or float64. gamma, beta: (C,), or None for 1 and 0.
        groups: 1 to C, a divisor of C: 1 normalises whole rows, C each channel of a row alone (instance normalisation).
        eps: added to the variance.
    Returns:
        y, and what group_norm_backward needs: x itself, but neither y nor the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or a group is one value, which has no variance.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    if x.ndim < 2:
        raise ShapeError(f"x has shape {x.shape}, expected at least 2 axes (rows, channels)")
    check_groups(groups, x.shape[1:])
    points = math.prod(x.shape[1:-1])
    return _forward(x, (x.shape[0], points, x.shape[-1]), int(groups), gamma, beta, eps, be)


def group_norm_backward(
    dy: Any, saved: GroupNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of group_norm_forward.

    With g = gamma * dy and xhat = (x - mean) * inv_std, means over the group:
        dgamma = sum dy * xhat,  dbeta = sum dy,  dx = inv_std * (g - mean(g) - xhat * mean(g * xhat))
    Args:
        dy: the shape of x. dgamma, dbeta: arrays to write the parameter gradients into.
    Returns:
        dx, dgamma (C,), dbeta (C,).
    """
    checks.from_training(saved)
    x, rows, gamma, mean, inv_std, be = saved
    dy = checks.shaped(dy, "dy", x.shape, x.dtype, be=be)
    dgamma = checks.output(dgamma, "dgamma", gamma.shape, x.dtype, be=be)
    dbeta = checks.output(dbeta, "dbeta", gamma.shape, x.dtype, be=be)
    dx = be.empty(x.shape, x.dtype)
    partials = _scratch(be, rows, 6)
    views = (dy.reshape(rows), x.reshape(rows), mean.shape[1], gamma, mean, inv_std)
    be.kernel("groupnorm.backward")(*views, True, partials, dgamma, dbeta, dx.reshape(rows))
    return dx, dgamma, dbeta


def layer_norm_forward(
    x: Any, gamma: Any, beta: Any, *, eps: float = 1e-5, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, GroupNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, with the mean and the biased variance of the last axis.

    Args:
        x: (..., C) float32 or float64. gamma, beta: (C,), or None for 1 and 0. eps: added to the variance.
    Returns:
        y, and what layer_norm_backward needs: x itself, but neither y nor the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or C is 1, which has no variance.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    check_groups(1, x.shape[-1:])
    channels = x.shape[-1]
    return _forward(x, (x.size // channels, 1, channels), 1, gamma, beta, eps, be)


def layer_norm_backward(
    dy: Any, saved: GroupNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of layer_norm_forward: dx, dgamma (C,), dbeta (C,). Arguments and formula are those of group_norm_backward."""
    return group_norm_backward(dy, saved, dgamma=dgamma, dbeta=dbeta)


def check_groups(groups: Any, row_shape: tuple[int, ...]) -> None:
    """Check that the channels, the last axis of a row, can be divided into groups of more than one value.

    Raises:
        ArgumentError: groups is not a positive whole number. ShapeError: it does not divide the channels, or groups have one value.
    """
    if not isinstance(groups, (int, np.integer)) or isinstance(groups, bool) or groups < 1:
        raise ArgumentError(f"groups={groups!r}: expected a positive whole number")
    channels = row_shape[-1]
    if channels % groups:
        divisors = ", ".join(str(n) for n in range(1, channels + 1) if channels % n == 0)
        raise ShapeError(f"groups={groups} does not divide {channels} channels: expected one of {divisors}")
    if math.prod(row_shape) == groups:
        values = f"a row of shape {row_shape} in groups={groups}"
        raise ShapeError(f"{values} has one value per group, which has no variance to normalise by: use fewer groups or wider rows")


def _forward(
    x: np.ndarray, rows: tuple[int, int, int], groups: int, gamma: Any, beta: Any, eps: Any, be: Backend
) -> tuple[np.ndarray, GroupNormSaved]:
    eps = checks.epsilon(eps)
    channels = rows[2]
    gamma = _channels(np.ones(channels) if gamma is None else gamma, "gamma", channels, x.dtype, be)
    beta = _channels(np.zeros(channels) if beta is None else beta, "beta", channels, x.dtype, be)
    mean, inv_std = be.empty((rows[0], groups), np.float64), be.empty((rows[0], groups), np.float64)
    y = be.empty(x.shape, x.dtype)
    scratch = _scratch(be, rows, 3)
    be.kernel("groupnorm.forward")(x.reshape(rows), groups, gamma, beta, eps, True, scratch, mean, inv_std, y.reshape(rows))
    return y, GroupNormSaved(x, rows, gamma, mean, inv_std, be)


def _channels(values: Any, name: str, channels: int, dtype: np.dtype, be: Backend) -> np.ndarray:
    vector = values if on_device(values) else np.ascontiguousarray(values, dtype)
    shape = values.shape if on_device(values) else np.shape(values)
    if shape != (channels,):
        raise ShapeError(f"{name} has shape {shape}, expected ({channels},): one number per channel")
    return be.place(vector)


def _scratch(be: Backend, rows: tuple[int, int, int], arrays: int) -> Any:
    count, points, channels = rows
    return be.scratch("partials", (chunks.count(count, points * channels), arrays, channels), np.float64)
