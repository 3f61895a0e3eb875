"""Moments and batch normalisation on plain arrays. Channels are the last axis: x is (..., C), and M counts the rest.

Between the heavy kernels there is only arithmetic on C numbers, in float64. Formulas: Ioffe and Szegedy 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nbnet.backend import Backend, get_backend
from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional import checks
from nbnet.kernels import chunks


class BatchNormSaved(NamedTuple):
    x: np.ndarray
    weights: np.ndarray | None
    mean: np.ndarray  # (C,) float64: of the batch in training, the given ones in evaluation
    var: np.ndarray  # (C,) float64, biased
    inv_std: np.ndarray  # (C,) float64
    total: float  # sum of the weights, or the number of rows
    affine: tuple[np.ndarray, np.ndarray, np.ndarray]  # center, scale, shift of the kernels, (C,) in x's dtype
    slope: float
    batch: bool  # whether mean and var are the batch's own
    backend: Backend


def moments(x, axes, keepdims: bool = False, weights=None, *, backend: str | Backend = "parallel"):
    """Mean and biased variance over some axes.

    Args:
        x: float32 or float64. axes: one axis or several. weights: an array that broadcasts against x, all at least 0.
    Returns:
        mean, variance in x's dtype; accumulated in float64.
    Raises:
        ArgumentError: an axis does not exist or is given twice, or the weights of a result sum to 0.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x")
    axes = (axes,) if np.isscalar(axes) else tuple(axes)
    reduced = sorted(a + x.ndim if a < 0 else a for a in axes)
    if len(set(reduced)) != len(reduced) or any(not 0 <= a < x.ndim for a in reduced):
        raise ArgumentError(f"axes {axes} of an array with shape {x.shape}: wanted different axes from {-x.ndim} to {x.ndim - 1}")
    kept = [a for a in range(x.ndim) if a not in reduced]
    rows = x.transpose(reduced + kept).reshape(-1, int(np.prod([x.shape[a] for a in kept])))
    if len(rows) == 0:
        raise ShapeError(f"moments over axes {axes} of an array with shape {x.shape}: there is nothing to average")
    shape = tuple(1 if a in reduced else n for a, n in enumerate(x.shape)) if keepdims else tuple(x.shape[a] for a in kept)
    if weights is None:
        mean, var = _moments(np.ascontiguousarray(rows), None, be)
    else:
        w = np.broadcast_to(np.asarray(weights, np.float64), x.shape).transpose(reduced + kept).reshape(rows.shape)
        total = w.sum(axis=0)
        if (w < 0).any() or (total == 0).any():
            raise ArgumentError("weights must be at least 0 and must not sum to 0")
        wide = rows.astype(np.float64)
        mean = (w * wide).sum(axis=0) / total
        var = (w * (wide - mean) ** 2).sum(axis=0) / total
    return mean.astype(x.dtype).reshape(shape), var.astype(x.dtype).reshape(shape)


def batch_normalization(x, mean, variance, offset, scale, variance_epsilon: float):
    """y = scale * (x - mean) / sqrt(variance + variance_epsilon) + offset, broadcast as NumPy does.

    offset and scale may be None (0 and 1). The definition of `tf.nn.batch_normalization`, in NumPy; batch_norm_forward is the fast one.
    """
    factor = 1 / np.sqrt(np.asarray(variance) + variance_epsilon)
    if scale is not None:
        factor = factor * scale
    y = (x - mean) * factor
    if offset is not None:
        y = y + offset
    return y.astype(np.asarray(x).dtype, copy=False)


def batch_norm_forward(
    x, gamma, beta, *, eps: float = 1e-5, mean=None, var=None, weights=None, slope: float = 1.0, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, BatchNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, over all axes but the last.

    Args:
        x: (..., C) float32 or float64. gamma, beta: (C,), or None for 1 and 0.
        eps: added to the variance.
        mean, var: (C,): given, they are used as constants (evaluation); None, the batch's own are (training).
        weights: (M,), one for each of the M = x.size / C rows, at least 0; a mask is weights in {0, 1}.
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 a fused ReLU.
    Returns:
        y, and what batch_norm_backward needs: x itself, but neither y nor the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or there is only one value a channel to train on.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x")
    if x.ndim < 2:
        raise ShapeError(f"x has shape {x.shape}, wanted at least 2 axes (rows, channels)")
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    gamma = np.ones(channels) if gamma is None else _channel_vector(gamma, "gamma", channels)
    beta = np.zeros(channels) if beta is None else _channel_vector(beta, "beta", channels)
    if (mean is None) != (var is None):
        raise ArgumentError("mean and var belong together: give both (evaluation) or neither (training)")
    total = float(count)
    if weights is not None:
        weights = checks.shaped(np.asarray(weights, x.dtype), "weights", (count,), x.dtype)
        total = float(weights.sum(dtype=np.float64))
    batch = mean is None
    if batch:
        _check_rows(x, count, weights, total)
        mean, var = _moments(rows, weights, be)
    else:
        mean, var = _channel_vector(mean, "mean", channels), _channel_vector(var, "var", channels)
    inv_std = 1 / np.sqrt(var + eps)
    scale = gamma * inv_std
    center = mean.astype(x.dtype)
    affine = (center, scale.astype(x.dtype), (beta + (center - mean) * scale).astype(x.dtype))
    y = be.empty(x.shape, x.dtype)
    be.kernel("batchnorm.apply")(rows, *affine, slope, y.reshape(rows.shape))
    return y, BatchNormSaved(x, weights, mean, var, inv_std, total, affine, slope, batch, be)


def batch_norm_backward(dy, saved: BatchNormSaved, *, dgamma=None, dbeta=None):
    """Gradients of batch_norm_forward.

    With g = dy through the activation, xhat = (x - mean) * inv_std, w the weights and W their sum:
        dgamma = sum g * xhat,  dbeta = sum g
        training:    dx = gamma * inv_std * (g - w / W * (dbeta + xhat * dgamma))
        evaluation:  dx = gamma * inv_std * g
    Args:
        dy: the shape of x. dgamma, dbeta: arrays to write the parameter gradients into.
    Returns:
        dx, dgamma (C,), dbeta (C,).
    """
    x, weights, mean, _, inv_std, total, affine, slope, batch, be = saved
    dy = checks.shaped(dy, "dy", x.shape, x.dtype)
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    flat_dy = dy.reshape(rows.shape)
    sum_g, sum_gx = np.empty(channels), np.empty(channels)
    be.kernel("batchnorm.backward_reduce")(flat_dy, rows, *affine, slope, _partials(be, count, channels), sum_g, sum_gx)
    center, scale, _ = affine
    error = mean - center  # the part of the mean that x's dtype cannot hold
    sum_gxhat = (sum_gx - error * sum_g) * inv_std
    dgamma = checks.output(dgamma, "dgamma", (channels,), x.dtype)
    dbeta = checks.output(dbeta, "dbeta", (channels,), x.dtype)
    dgamma[:] = sum_gxhat
    dbeta[:] = sum_g

    a = scale.astype(np.float64)
    if batch:
        c = -a * inv_std * sum_gxhat / total
        b = -a * sum_g / total - c * error
    else:
        b = c = np.zeros(channels)
    dx = be.empty(x.shape, x.dtype)
    coefficients = (scale, b.astype(x.dtype), c.astype(x.dtype))
    be.kernel("batchnorm.backward_apply")(flat_dy, rows, weights, *affine, slope, *coefficients, dx.reshape(rows.shape))
    return dx, dgamma, dbeta


def _moments(rows: np.ndarray, weights: np.ndarray | None, be: Backend) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of the rows (M, C), as float64."""
    count, channels = rows.shape
    mean, var = np.empty(channels), np.empty(channels)
    be.kernel("batchnorm.moments")(rows, weights, _partials(be, count, channels), mean, var)
    return mean, var


def _partials(be: Backend, count: int, channels: int) -> np.ndarray:
    return be.empty((chunks.count(count, channels), 3, channels), np.float64)


def _channel_vector(values, name: str, channels: int) -> np.ndarray:
    vector = np.asarray(values, np.float64)
    if vector.shape != (channels,):
        raise ShapeError(f"{name} has shape {vector.shape}, wanted ({channels},): one number a channel")
    return vector


def _check_rows(x: np.ndarray, count: int, weights: np.ndarray | None, total: float) -> None:
    if count < 2:
        raise ShapeError(
            f"x has shape {x.shape}: one value a channel has no variance to normalise by; "
            f"train on a larger batch, or evaluate with mean= and var="
        )
    if weights is not None and ((weights < 0).any() or not total > 0):
        raise ArgumentError("weights must be at least 0 and must not sum to 0")
