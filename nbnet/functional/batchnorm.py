"""Batch normalisation on plain arrays. Channels are the last axis: x is (..., C), and M is the number of rows (all other axes).

Every dialect is these few calls with other numbers: statistics of the batch, statistics merged from several parts, or constants;
weighted or not; biased or not; corrected (renormalisation) or not. Between the heavy kernels there is only arithmetic on C
numbers, in float64. Formulas: Ioffe and Szegedy 2015; renormalisation: Ioffe 2017.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, BackendError, ShapeError
from nbnet.functional import checks
from nbnet.functional.batchnorm_coefficients import about_mean, affine_of, batch_statistics, constant_statistics, corrected_affine_of
from nbnet.functional.moments import Stats, batch_norm_stats, partials, row_weights
from nbnet.runtime.arrays import FLOATS, for_kernels, on_device
from nbnet.runtime.backend import Backend, get_backend


class Correction(NamedTuple):
    """Renormalisation: xhat becomes xhat * r + k. Both are (C,) constants: no gradient flows through them."""

    r: np.ndarray
    k: np.ndarray


class Normalization(NamedTuple):
    """The numbers that x is normalised by: y = gamma * ((x - mean) / sqrt(m2 / divisor + eps) * r + k) + beta, each (C,)."""

    stats: Stats | None  # the statistics that gradients flow through; None: mean and variance are constants
    mean: Any
    m2: Any
    divisor: float | np.ndarray
    gamma: Any  # None is 1
    beta: Any  # None is 0
    eps: float
    weights: Any = None  # of the rows or the elements of x
    correction: Correction | None = None


class BatchNormSaved(NamedTuple):
    """What backward needs: x itself, but not the normalised x."""

    x: np.ndarray
    weights: np.ndarray | None
    stats: Stats | None  # as in Normalization
    divisor: float | np.ndarray
    mean: np.ndarray  # (C,) float64: a copy, so that it stays the same when a moving mean changes
    inv_std: np.ndarray  # (C,) float64
    scale: np.ndarray  # (C,) float64, before rounding to x's dtype
    correction: Correction | None
    affine: tuple[np.ndarray, np.ndarray, np.ndarray]  # center, scale, shift of the kernels, (C,) in x's dtype
    backend: Backend


class Sums(NamedTuple):
    """What backward reduces over rows: sum g and sum g * (x - mean), (C,) float64. The sums of several parts can be added."""

    g: np.ndarray
    gd: np.ndarray


def batch_normalization(
    x: np.ndarray, mean: np.ndarray, variance: np.ndarray, offset: np.ndarray | None, scale: np.ndarray | None, variance_epsilon: float
) -> np.ndarray:
    """y = scale * (x - mean) / sqrt(variance + variance_epsilon) + offset, broadcast as in NumPy.

    offset and scale may be None (0 and 1). The definition of `tf.nn.batch_normalization`, in NumPy. batch_norm_forward is faster.

    Raises:
        BackendError: an array is on the GPU.
    """
    if any(on_device(array) for array in (x, mean, variance, offset, scale)):
        raise BackendError("batch_normalization got an array on the GPU, expected NumPy's: use batch_norm_forward with backend='cuda'")
    factor = 1 / np.sqrt(np.asarray(variance) + variance_epsilon)
    if scale is not None:
        factor = factor * scale
    y = (x - mean) * factor
    if offset is not None:
        y = y + offset
    return y.astype(np.asarray(x).dtype, copy=False)


# ------------------------------------------------------------------------------------------------ the whole pair


def batch_norm_forward(
    x: Any,
    gamma: Any,
    beta: Any,
    *,
    eps: float = 1e-5,
    mean: Any = None,
    var: Any = None,
    weights: Any = None,
    ddof: float = 0,
    correction: Correction | None = None,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, BatchNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, over all axes but the last   (Ioffe and Szegedy 2015, algorithm 1).

    Args:
        x: (..., C) float32 or float64. gamma, beta: (C,), or None for 1 and 0.
        eps: added to the variance.
        mean, var: (C,): if given, they are used as constants (evaluation); if None, the statistics of the batch are used (training).
        weights: one per row (M = x.size / C), or one per element of x, at least 0; a mask is weights in {0, 1}.
        ddof: 0 normalises by the biased variance, 1 by the unbiased one.
        correction: of batch renormalisation   (Ioffe 2017).
    Returns:
        y, and what batch_norm_backward needs: x itself, but not the normalised x.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or there is only one value per channel to train on.
    """
    if (mean is None) != (var is None):
        raise ArgumentError(
            f"got {'var' if mean is None else 'mean'} alone, expected mean and var together (evaluation) or neither (training)"
        )
    be = get_backend(backend)
    if mean is not None:
        return _normalize(x, Normalization(None, mean, var, 1.0, gamma, beta, eps, weights, correction), be)
    stats = batch_norm_stats(x, weights, backend=be)
    return batch_norm_apply(x, stats, gamma, beta, eps=eps, weights=weights, ddof=ddof, correction=correction, backend=be)


def batch_norm_backward(
    dy: Any, saved: BatchNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of batch_norm_forward.

    With xhat = (x - mean) * inv_std, w the weights, W their sum, and r, k the correction:
        dgamma = sum dy * (xhat * r + k),  dbeta = sum dy
        training:    dx = gamma * r * inv_std * (dy - w * (sum dy / W + xhat * sum(dy * xhat) / (W - ddof)))
        evaluation:  dx = gamma * r * inv_std * dy
    Args:
        dy: the shape of y. dgamma, dbeta: arrays to write the parameter gradients into.
    Returns:
        dx, dgamma (C,), dbeta (C,).
    """
    checks.from_training(saved)
    dy = checks.shaped(dy, "dy", saved.x.shape, saved.x.dtype, be=saved.backend)
    coefficients, dgamma, dbeta = backward_coefficients(*reduce(dy, saved), saved.affine[0], saved, dgamma, dbeta)
    return input_gradient(dy, saved, coefficients), dgamma, dbeta


# ------------------------------------------------------------------------- the pieces: synchronised, accumulated


def batch_norm_apply(
    x: Any,
    stats: Stats,
    gamma: Any,
    beta: Any,
    *,
    eps: float = 1e-5,
    weights: Any = None,
    ddof: float = 0,
    correction: Correction | None = None,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, BatchNormSaved]:
    """Normalise x by statistics that gradients flow through: its own, or those of a larger batch that x is a part of.

    Args:
        stats: from batch_norm_stats, or merge_stats over all parts. weights: of x's rows. The rest as in batch_norm_forward.
    """
    return _normalize(x, by_statistics(np.shape(x), stats, gamma, beta, eps, weights, ddof, correction), get_backend(backend))


def batch_norm_backward_reduce(dy: Any, saved: BatchNormSaved) -> Sums:
    """The sums over the rows of this part that dx of every part needs. For a batch in parts, add them: `Sums(g1 + g2, gd1 + gd2)`."""
    checks.from_training(saved)
    dy = checks.shaped(dy, "dy", saved.x.shape, saved.x.dtype, be=saved.backend)
    sum_g, sum_gx = reduce(dy, saved)
    saved.backend.channelwise(about_mean, (sum_gx,), sum_g, sum_gx, saved.mean, saved.affine[0])
    return Sums(sum_g, sum_gx)


def batch_norm_parameter_gradients(
    sums: Sums, saved: BatchNormSaved, *, dgamma: Any = None, dbeta: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """dgamma and dbeta (C,), from the sums over all rows."""
    checks.from_training(saved)
    _, dgamma, dbeta = backward_coefficients(*sums, saved.mean, saved, dgamma, dbeta)
    return dgamma, dbeta


def batch_norm_backward_apply(dy: Any, saved: BatchNormSaved, sums: Sums) -> np.ndarray:
    """dx of one part, from the sums over all parts."""
    checks.from_training(saved)
    dy = checks.shaped(dy, "dy", saved.x.shape, saved.x.dtype, be=saved.backend)
    coefficients, _, _ = backward_coefficients(*sums, saved.mean, saved, None, None)
    return input_gradient(dy, saved, coefficients)


# ------------------------------------------------------------------------ shared with nbnet.functional.fused


def by_statistics(
    shape: tuple[int, ...],
    stats: Stats,
    gamma: Any,
    beta: Any,
    eps: float = 1e-5,
    weights: Any = None,
    ddof: float = 0,
    correction: Correction | None = None,
) -> Normalization:
    """Normalisation of x, which has this shape, by statistics that gradients flow through.

    Raises:
        ArgumentError, ShapeError: there are too few rows, or their weights sum to 0.
    """
    least = stats.least
    if not least > 0:
        raise ArgumentError(
            "there is nothing to normalise by: no part has rows, or all weights are 0; expected weights that do not sum to 0"
        )
    if least <= ddof or (weights is None and least < 2):
        raise ShapeError(
            f"x has shape {shape}, and the statistics count {least:g}: one value per channel has no variance to normalise by; "
            f"train on a larger batch, or evaluate with mean= and var="
        )
    return Normalization(stats, stats.mean, stats.m2, stats.count - ddof, gamma, beta, eps, weights, correction)


def prepare(x: Any, by: Normalization, be: Backend) -> BatchNormSaved:
    """Check x and the numbers, and bring them into the form of the kernels: y = (x - center) * scale + shift."""
    x = checks.floats(x, "x", empty=True, be=be)
    if x.ndim < 2:
        raise ShapeError(f"x has shape {x.shape}, expected at least 2 axes (rows, channels)")
    channels = x.shape[-1]
    weights, eps = row_weights(by.weights, x.reshape(-1, channels)), checks.epsilon(by.eps)
    gamma = 1.0 if by.gamma is None else _channels(by.gamma, "gamma", channels)
    beta = 0.0 if by.beta is None else _channels(by.beta, "beta", channels)
    numbers = (_channels(by.mean, "mean", channels), _channels(by.m2, "var", channels), by.divisor, gamma, beta, eps)
    wide = tuple(be.vectors(3, channels, np.float64))
    affine = tuple(be.vectors(3, channels, x.dtype))
    if by.correction is None:
        be.channelwise(affine_of(x.dtype.type), wide + affine, *numbers, clamp=True)
    else:
        be.channelwise(corrected_affine_of(x.dtype.type), wide + affine, *numbers, *by.correction, clamp=True)
    weights = None if weights is None else be.place(weights)
    mean, inv_std, scale = wide
    return BatchNormSaved(x, weights, by.stats, by.divisor, mean, inv_std, scale, by.correction, affine, be)


def apply(saved: BatchNormSaved, slope: float = 1.0) -> np.ndarray:
    """y, times slope where it is negative (1: no activation)."""
    x, be = saved.x, saved.backend
    y = be.empty(x.shape, x.dtype)
    if x.size:
        rows = x.reshape(-1, x.shape[-1])
        be.kernel("batchnorm.apply")(rows, *saved.affine, slope, y.reshape(rows.shape))
    return y


def reduce(dy: Any, saved: BatchNormSaved, slope: float = 1.0) -> tuple[Any, Any]:
    """sum g and sum g * (x - center) over the rows, (C,) float64, where g is dy times the slope of the activation."""
    x, be = saved.x, saved.backend
    sum_g, sum_gx = be.vectors(2, x.shape[-1], np.float64)
    if x.size:
        rows = x.reshape(-1, x.shape[-1])
        scratch = partials(be, *rows.shape)
        kernel = be.kernel("batchnorm.backward_reduce")
        kernel(dy.reshape(rows.shape), rows, saved.weights, *saved.affine, slope, scratch, sum_g, sum_gx)
    else:
        sum_g[...], sum_gx[...] = 0, 0
    return sum_g, sum_gx


def backward_coefficients(
    sum_g: Any, sum_gx: Any, about: Any, saved: BatchNormSaved, dgamma: Any, dbeta: Any
) -> tuple[list[Any], Any, Any]:
    """a, b, c of dx = a * g + w * (b + c * (x - center)), dgamma and dbeta, from sum g and sum g * (x - about)."""
    be, dtype = saved.backend, saved.x.dtype
    dgamma = checks.output(dgamma, "dgamma", sum_g.shape, dtype, be=be)
    dbeta = checks.output(dbeta, "dbeta", sum_g.shape, dtype, be=be)
    coefficients = be.vectors(3, sum_g.size, dtype)
    r, k = (1.0, 0.0) if saved.correction is None else saved.correction
    numbers = (sum_g, sum_gx, about, saved.mean, saved.inv_std, saved.scale, r, k)
    if saved.stats is None:
        be.channelwise(constant_statistics, (dgamma, dbeta, *coefficients), *numbers, clamp=True)
    else:
        of_batch = (saved.affine[0], saved.divisor, saved.stats.count)
        be.channelwise(batch_statistics, (dgamma, dbeta, *coefficients), *numbers, *of_batch, clamp=True)
    return coefficients, dgamma, dbeta


def input_gradient(g: Any, saved: BatchNormSaved, coefficients: list[Any], slope: float = 1.0, out: Any = None) -> np.ndarray:
    """dx from g, which first goes through the activation of this slope. out: an array for dx; it may be g."""
    x, be = saved.x, saved.backend
    dx = be.empty(x.shape, x.dtype) if out is None else out
    if x.size:
        rows = x.reshape(-1, x.shape[-1])
        kernel = be.kernel("batchnorm.backward_apply")
        kernel(g.reshape(rows.shape), rows, saved.weights, *saved.affine, slope, *coefficients, dx.reshape(rows.shape))
    return dx


def _normalize(x: Any, by: Normalization, be: Backend) -> tuple[np.ndarray, BatchNormSaved]:
    saved = prepare(x, by, be)
    return apply(saved), saved


def _channels(values: Any, name: str, channels: int) -> Any:
    """values (C,), not copied if they are floats as kernels take them: a gamma, or a moving mean, itself."""
    vector = values if on_device(values) else for_kernels(values)
    if vector.dtype not in FLOATS:
        vector = vector.astype(np.float64)
    if vector.shape != (channels,):
        raise ShapeError(f"{name} has shape {vector.shape}, expected ({channels},): one number per channel")
    return vector
