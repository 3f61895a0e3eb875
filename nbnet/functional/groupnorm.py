"""Group, layer and RMS normalisation on plain arrays: statistics of each row alone, the same in training and evaluation.

Channels are the last axis. Formulas: Wu and He 2018 (group normalisation); Ba, Kiros and Hinton 2016 (layer normalisation); Zhang and
Sennrich 2019 (RMS normalisation).
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

WIDE = 1 << 19  # numbers that one array of all chunks' scratch holds


class GroupNormSaved(NamedTuple):
    x: np.ndarray
    rows: tuple[int, int, int]  # x seen as (rows, points of a row, channels)
    gamma: np.ndarray  # in x's dtype: (C,), or of the shape of the axes that are normalised
    mean: np.ndarray  # (rows, groups) float64
    inv_std: np.ndarray  # (rows, groups) float64
    centered: bool  # whether the mean was subtracted
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
    return _forward(x, (x.shape[0], points, x.shape[-1]), int(groups), gamma, beta, eps, x.shape[-1:], be)


def group_norm_backward(
    dy: Any, saved: GroupNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of group_norm_forward.

    With g = gamma * dy and xhat = (x - mean) * inv_std, means over the group:
        dgamma = sum dy * xhat,  dbeta = sum dy,  dx = inv_std * (g - mean(g) - xhat * mean(g * xhat))
    Args:
        dy: the shape of x. dgamma, dbeta: arrays to write the parameter gradients into.
    Returns:
        dx, dgamma and dbeta of the shape of gamma.
    """
    checks.from_training(saved)
    x, rows, gamma, mean, inv_std, centered, be = saved
    dy = checks.shaped(dy, "dy", x.shape, x.dtype, be=be)
    dgamma = checks.output(dgamma, "dgamma", gamma.shape, x.dtype, be=be)
    dbeta = checks.output(dbeta, "dbeta", gamma.shape, x.dtype, be=be)
    dx = be.empty(x.shape, x.dtype)
    partials = _scratch(be, rows, 6)
    views = (dy.reshape(rows), x.reshape(rows), mean.shape[1], gamma.reshape(-1), mean, inv_std)
    be.kernel("groupnorm.backward")(*views, centered, partials, dgamma.reshape(-1), dbeta.reshape(-1), dx.reshape(rows))
    return dx, dgamma, dbeta


def layer_norm_forward(
    x: Any, gamma: Any, beta: Any, *, axes: Any = -1, eps: float = 1e-5, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, GroupNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, with the mean and the biased variance of the last axis, or of several last axes.

    Args:
        x: float32 or float64. gamma, beta: of the shape of the axes that are normalised, or None for 1 and 0.
        axes: the last one, -1, or several last ones, such as (-3, -2, -1) for whole images.
        eps: added to the variance.
    Returns:
        y, and what layer_norm_backward needs: x itself, but neither y nor the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or the axes have one value, which has no variance.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    shape = last_axes(axes, x.shape)
    check_groups(1, shape)
    return _forward(x, _rows(x, shape), 1, gamma, beta, eps, shape, be)


def layer_norm_backward(
    dy: Any, saved: GroupNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of layer_norm_forward: dx, dgamma, dbeta. Arguments and formula are those of group_norm_backward."""
    return group_norm_backward(dy, saved, dgamma=dgamma, dbeta=dbeta)


def rms_norm_forward(
    x: Any, gamma: Any = None, *, axes: Any = -1, eps: float = 1e-5, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, GroupNormSaved]:
    """y = gamma * x / sqrt(mean of x^2 + eps), with the mean over the last axis, or over several last axes (Zhang and Sennrich 2019).

    Args:
        x: float32 or float64. gamma: of the shape of the axes that are normalised, or None for 1.
        axes: the last one, -1, or several last ones, such as (-2, -1). eps: added to the mean of squares.
    Returns:
        y, and what rms_norm_backward needs: x itself, but neither y nor the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", be=be)
    shape = last_axes(axes, x.shape)
    return _forward(x, _rows(x, shape), 1, gamma, None, eps, shape, be, centered=False)


def rms_norm_backward(dy: Any, saved: GroupNormSaved, *, dgamma: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of rms_norm_forward: dx and dgamma.

    With g = gamma * dy and xhat = x / sqrt(mean of x^2 + eps):
        dgamma = sum dy * xhat,  dx = (g - xhat * mean(g * xhat)) / sqrt(mean of x^2 + eps)
    """
    return group_norm_backward(dy, saved, dgamma=dgamma)[:2]


def last_axes(axes: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the axes that are normalised.

    Raises:
        ArgumentError: they are not the last axes of this shape.
    """
    listed = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    whole = all(isinstance(axis, (int, np.integer)) and not isinstance(axis, bool) for axis in listed)
    first = len(shape) - len(listed)
    if not listed or not whole or sorted(axis + len(shape) if axis < 0 else axis for axis in listed) != [*range(first, len(shape))]:
        raise ArgumentError(f"axes={axes!r}: expected the last axes of {len(shape)}, -1 or several such as (-2, -1)")
    return shape[first:]


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


def _rows(x: Any, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """x, whose last axes have this shape, as (rows, 1, values of a row)."""
    values = math.prod(shape)
    return x.size // values, 1, values


def _forward(
    x: np.ndarray,
    rows: tuple[int, int, int],
    groups: int,
    gamma: Any,
    beta: Any,
    eps: Any,
    shape: tuple[int, ...],
    be: Backend,
    centered: bool = True,
) -> tuple[np.ndarray, GroupNormSaved]:
    """shape: of gamma and beta."""
    eps = checks.epsilon(eps)
    gamma = _affine(np.ones(shape) if gamma is None else gamma, "gamma", shape, x.dtype, be)
    beta = be.no_bias(rows[2], x.dtype) if beta is None else _affine(beta, "beta", shape, x.dtype, be).reshape(-1)
    mean, inv_std = be.empty((rows[0], groups), np.float64), be.empty((rows[0], groups), np.float64)
    y = be.empty(x.shape, x.dtype)
    options = groups, gamma.reshape(-1), beta, eps, centered, _scratch(be, rows, 3)
    be.kernel("groupnorm.forward")(x.reshape(rows), *options, mean, inv_std, y.reshape(rows))
    return y, GroupNormSaved(x, rows, gamma, mean, inv_std, centered, be)


def _affine(values: Any, name: str, expected: tuple[int, ...], dtype: np.dtype, be: Backend) -> np.ndarray:
    vector = values if on_device(values) else np.ascontiguousarray(values, dtype)
    shape = values.shape if on_device(values) else np.shape(values)
    if shape != expected:
        raise ShapeError(f"{name} has shape {shape}, expected {expected}: one number per {'channel' if len(expected) == 1 else 'value'}")
    return be.place(vector)


def _scratch(be: Backend, rows: tuple[int, int, int], arrays: int) -> Any:
    """Wide rows, of whole images, get fewer chunks: one takes `arrays` rows of scratch."""
    count, points, channels = rows
    chosen = chunks.shared(min(chunks.count(count, points * channels), max(1, WIDE // channels)))
    return be.scratch("partials", (chosen, arrays, channels), np.float64)
