"""Batch normalisation on plain arrays. Channels are the last axis: x is (..., C), and M counts the rows, the rest.

Every dialect is these few calls with other numbers: statistics of the batch, of several parts merged, or constants;
weighted or not; biased or not; corrected (renormalisation) or not. Between the heavy kernels there is only arithmetic on C
numbers, in float64. Formulas: Ioffe and Szegedy 2015; renormalisation: Ioffe 2017.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, ShapeError, unknown
from nbnet.functional import checks
from nbnet.functional.batchnorm_coefficients import about_mean, affine_of, batch_statistics, constant_statistics, corrected_affine_of
from nbnet.functional.moments import Stats, batch_norm_stats, partials, row_weights
from nbnet.kernels.batchnorm import SIGMOID, TANH
from nbnet.runtime.backend import FLOATS, Backend, get_backend, on_device

SMOOTH = {"tanh": TANH, "sigmoid": SIGMOID}


class Correction(NamedTuple):
    """Renormalisation: xhat becomes xhat * r + k. Both are (C,) constants: no gradient flows through them."""

    r: np.ndarray
    k: np.ndarray


class BatchNormSaved(NamedTuple):
    x: np.ndarray
    weights: np.ndarray | None
    stats: Stats | None  # what the batch was normalised by, or None where it was by constants
    divisor: float | np.ndarray  # the variance is m2 / divisor
    mean: np.ndarray  # (C,) float64: as it was, whatever becomes of a moving mean
    inv_std: np.ndarray  # (C,) float64
    scale: np.ndarray  # (C,) float64, before it was rounded to x's dtype
    correction: Correction | None
    affine: tuple[np.ndarray, np.ndarray, np.ndarray]  # center, scale, shift of the kernels, (C,) in x's dtype
    slope: float
    smooth: tuple[str, np.ndarray] | None  # a smooth activation and y, from which its gradient follows
    out_shape: tuple[int, ...]
    backend: Backend

    @property
    def max_pool(self) -> bool:
        return self.out_shape != self.x.shape


class Sums(NamedTuple):
    """What backward reduces over rows: sum g and sum g * (x - mean), (C,) float64. The sums of parts simply add."""

    g: np.ndarray
    gd: np.ndarray


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


# ------------------------------------------------------------------------------------------------ the whole pair


def batch_norm_forward(
    x,
    gamma,
    beta,
    *,
    eps: float = 1e-5,
    mean=None,
    var=None,
    weights=None,
    ddof: float = 0,
    correction: Correction | None = None,
    slope: float = 1.0,
    activation: str | None = None,
    max_pool: bool = False,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, BatchNormSaved]:
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, over all axes but the last.

    Args:
        x: (..., C) float32 or float64. gamma, beta: (C,), or None for 1 and 0.
        eps: added to the variance.
        mean, var: (C,): given, they are used as constants (evaluation); None, the batch's own are (training).
        weights: one for each of the M = x.size / C rows, or for each element of x, at least 0; a mask is weights in {0, 1}.
        ddof: 0 normalises by the biased variance, 1 by the unbiased one.
        correction: of batch renormalisation.
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 a fused ReLU.
        activation: "tanh" or "sigmoid", in the same pass; without slope and max_pool.
        max_pool: y is then (N, H // 2, W // 2, C), the largest of each 2 x 2 pixels, in the same pass; x is (N, H, W, C), without weights.
    Returns:
        y, and what batch_norm_backward needs: x itself, but neither the normalised x nor, without an activation, y.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit, or there is only one value a channel to train on.
    """
    if (mean is None) != (var is None):
        raise ArgumentError("mean and var belong together: give both (evaluation) or neither (training)")
    options = {
        "eps": eps,
        "weights": weights,
        "correction": correction,
        "slope": slope,
        "activation": activation,
        "max_pool": max_pool,
        "backend": backend,
    }
    if mean is not None:
        return _normalize(x, None, 1.0, mean, var, gamma, beta, **options)
    stats = batch_norm_stats(x, weights, backend=backend)
    return batch_norm_apply(x, stats, gamma, beta, ddof=ddof, **options)


def batch_norm_backward(dy, saved: BatchNormSaved, *, dgamma=None, dbeta=None, overwrite_dy: bool = False):
    """Gradients of batch_norm_forward.

    With g = dy through the activation, xhat = (x - mean) * inv_std, w the weights, W their sum, and r, k the correction:
        dgamma = sum g * (xhat * r + k),  dbeta = sum g
        training:    dx = gamma * r * inv_std * (g - w * (sum g / W + xhat * sum(g * xhat) / (W - ddof)))
        evaluation:  dx = gamma * r * inv_std * g
    Args:
        dy: the shape of y. dgamma, dbeta: arrays to write the parameter gradients into.
        overwrite_dy: dy is not needed any more, and dx may take its place.
    Returns:
        dx, dgamma (C,), dbeta (C,).
    """
    g, coefficients, dgamma, dbeta = batch_norm_backward_coefficients(dy, saved, dgamma=dgamma, dbeta=dbeta, overwrite_dy=overwrite_dy)
    return batch_norm_backward_rows(g, saved, coefficients, overwrite_dy), dgamma, dbeta


def batch_norm_backward_coefficients(
    dy, saved: BatchNormSaved, *, dgamma=None, dbeta=None, overwrite_dy: bool = False
) -> tuple[Any, list[Any], Any, Any]:
    """The first half of batch_norm_backward: g, which is dy through a smooth activation (in its place with overwrite_dy), else dy
    itself; what each row of dx needs of all the others; dgamma and dbeta."""
    g, sum_g, sum_gx = _reduce(dy, saved, overwrite_dy)
    return g, *_backward_numbers(sum_g, sum_gx, saved.affine[0], saved, dgamma, dbeta)


def batch_norm_backward_rows(g, saved: BatchNormSaved, coefficients: list[Any], overwrite_g: bool = False):
    """The second half: dx from g, of all rows or, with their x in saved, of some of them. dx takes the place of g behind a smooth
    activation, whose g is nobody else's, and with overwrite_g unless there is a max_pool."""
    x, be = saved.x, saved.backend
    g = checks.shaped(g, "dy", saved.out_shape, x.dtype, be=be)
    in_place = saved.smooth is not None or (overwrite_g and not saved.max_pool)
    dx = g if in_place else be.empty(x.shape, x.dtype)
    if saved.max_pool:
        be.kernel("batchnorm.backward_apply_max_pool")(g, x, *saved.affine, saved.slope, *coefficients, dx)
    elif x.size:
        rows = x.reshape(-1, x.shape[-1])
        kernel = be.kernel("batchnorm.backward_apply")
        kernel(g.reshape(rows.shape), rows, saved.weights, *saved.affine, saved.slope, *coefficients, dx.reshape(rows.shape))
    return dx


# ------------------------------------------------------------------------- the pieces: synchronised, accumulated


def batch_norm_apply(
    x,
    stats: Stats,
    gamma,
    beta,
    *,
    eps: float = 1e-5,
    weights=None,
    ddof: float = 0,
    correction: Correction | None = None,
    slope: float = 1.0,
    activation: str | None = None,
    max_pool: bool = False,
    backend: str | Backend = "parallel",
) -> tuple[np.ndarray, BatchNormSaved]:
    """Normalise x by statistics that gradients flow through: its own, or those of a larger batch that x is a part of.

    Args:
        stats: from batch_norm_stats, or merge_stats over all parts. weights: of x's rows. The rest as in batch_norm_forward.
    """
    least = stats.least
    if not least > 0:
        raise ArgumentError("there is nothing to normalise by: all weights are 0, or no part has rows; weights must not sum to 0")
    if least <= ddof or (weights is None and least < 2):
        raise ShapeError(
            f"x has shape {np.shape(x)}, and the statistics count {least:g}: one value a channel has no variance to normalise by; "
            f"train on a larger batch, or evaluate with mean= and var="
        )
    divisor = stats.count - ddof
    options = {
        "eps": eps,
        "weights": weights,
        "correction": correction,
        "slope": slope,
        "activation": activation,
        "max_pool": max_pool,
        "backend": backend,
    }
    return _normalize(x, stats, divisor, stats.mean, stats.m2, gamma, beta, **options)


def batch_norm_backward_reduce(dy, saved: BatchNormSaved) -> Sums:
    """The sums over this part's rows that dx of every part needs. For a batch in parts, add them up: `Sums(g1 + g2, gd1 + gd2)`."""
    _, sum_g, sum_gx = _reduce(dy, saved)
    saved.backend.channelwise(about_mean, (sum_gx,), sum_g, sum_gx, saved.mean, saved.affine[0])
    return Sums(sum_g, sum_gx)


def batch_norm_parameter_gradients(sums: Sums, saved: BatchNormSaved, *, dgamma=None, dbeta=None) -> tuple[np.ndarray, np.ndarray]:
    """dgamma and dbeta (C,), from the sums over all rows."""
    _, dgamma, dbeta = _backward_numbers(*sums, saved.mean, saved, dgamma, dbeta)
    return dgamma, dbeta


def batch_norm_backward_apply(dy, saved: BatchNormSaved, sums: Sums) -> np.ndarray:
    """dx of one part, from the sums over all parts."""
    coefficients, _, _ = _backward_numbers(*sums, saved.mean, saved, None, None)
    if saved.smooth is not None:
        activation, y = saved.smooth
        be, dy = saved.backend, checks.shaped(dy, "dy", saved.out_shape, saved.x.dtype, be=saved.backend)
        g = be.empty(dy.shape, dy.dtype)
        be.kernel(f"activation.{activation}_backward")(dy.reshape(-1), y.reshape(-1), g.reshape(-1))
        dy = g
    return batch_norm_backward_rows(dy, saved, coefficients)


# ------------------------------------------------------------------------------------------------------ helpers


def _normalize(x, stats, divisor, mean, m2, gamma, beta, *, eps, weights, correction, slope, activation, max_pool, backend):
    """y = act(gamma * ((x - mean) / sqrt(var + eps) * r + k) + beta), in the form of the kernel: act((x - center) * scale + shift).

    var is m2 / divisor.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", empty=True, be=be)
    if x.ndim < 2:
        raise ShapeError(f"x has shape {x.shape}, wanted at least 2 axes (rows, channels)")
    channels = x.shape[-1]
    rows = x.reshape(-1, channels)
    weights, eps = row_weights(weights, rows), checks.epsilon(eps)
    _check_what_follows(x, weights, slope, activation, max_pool)
    gamma = 1.0 if gamma is None else _channels(gamma, "gamma", channels)
    beta = 0.0 if beta is None else _channels(beta, "beta", channels)
    mean, m2 = _channels(mean, "mean", channels), _channels(m2, "var", channels)
    wide = tuple(be.vectors(3, channels, np.float64))
    affine = tuple(be.vectors(3, channels, x.dtype))
    numbers = (mean, m2, divisor, gamma, beta, eps)
    if correction is None:
        be.channelwise(affine_of(x.dtype.type), wide + affine, *numbers, clamp=True)
    else:
        be.channelwise(corrected_affine_of(x.dtype.type), wide + affine, *numbers, *correction, clamp=True)
    weights = None if weights is None else be.place(weights)
    if max_pool:
        y = be.empty((len(x), x.shape[1] // 2, x.shape[2] // 2, channels), x.dtype)
        be.kernel("batchnorm.apply_max_pool")(x, *affine, slope, y)
    else:
        y = be.empty(x.shape, x.dtype)
        if x.size and activation is not None:
            be.kernel("batchnorm.apply_smooth")(rows, *affine, SMOOTH[activation], y.reshape(rows.shape))
        elif x.size:
            be.kernel("batchnorm.apply")(rows, *affine, slope, y.reshape(rows.shape))
    smooth = None if activation is None else (activation, y)
    mean, inv_std, scale = wide
    saved = BatchNormSaved(x, weights, stats, divisor, mean, inv_std, scale, correction, affine, slope, smooth, y.shape, be)
    return y, saved


def _check_what_follows(x, weights, slope: float, activation: str | None, max_pool: bool) -> None:
    """Which of the activations and the pool go together, and with what."""
    if activation is not None and activation not in SMOOTH:
        raise ArgumentError(unknown("activation", activation, SMOOTH) + "; for ReLU and leaky ReLU give slope=")
    if activation is not None and (slope != 1 or max_pool):
        raise ArgumentError(f"activation={activation!r} with {'max_pool=True' if max_pool else f'slope={slope!r}'}: one of them at a time")
    if max_pool and (weights is not None or x.ndim != 4):
        given = f"x of shape {x.shape}" if weights is None else "weights"
        raise ArgumentError(f"max_pool=True with {given}: wanted images (N, H, W, C) without weights")


def _reduce(dy, saved: BatchNormSaved, overwrite_dy: bool = False) -> tuple[Any, Any, Any]:
    """g, which is dy through a smooth activation, else dy itself; sum g and sum g * (x - center) over the rows, (C,) float64."""
    x, be = saved.x, saved.backend
    dy = checks.shaped(dy, "dy", saved.out_shape, x.dtype, be=be)
    channels = x.shape[-1]
    sum_g, sum_gx = be.vectors(2, channels, np.float64)
    if saved.max_pool:
        scratch = partials(be, len(x) * dy.shape[1], channels, 2 * x.shape[2])
        be.kernel("batchnorm.backward_reduce_max_pool")(dy, x, *saved.affine, saved.slope, scratch, sum_g, sum_gx)
    elif x.size:
        rows = x.reshape(-1, channels)
        scratch = partials(be, len(rows), channels)
        if saved.smooth is not None:
            activation, y = saved.smooth
            g = dy if overwrite_dy else be.empty(x.shape, x.dtype)
            through = dy.reshape(rows.shape), y.reshape(rows.shape), rows, saved.affine[0], SMOOTH[activation]
            be.kernel("batchnorm.backward_reduce_smooth")(*through, scratch, g.reshape(rows.shape), sum_g, sum_gx)
            return g, sum_g, sum_gx
        be.kernel("batchnorm.backward_reduce")(dy.reshape(rows.shape), rows, *saved.affine, saved.slope, scratch, sum_g, sum_gx)
    else:
        sum_g[...], sum_gx[...] = 0, 0
    return dy, sum_g, sum_gx


def _backward_numbers(sum_g, sum_gx, about, saved: BatchNormSaved, dgamma, dbeta) -> tuple[list[Any], Any, Any]:
    """a, b, c of the kernels, dgamma and dbeta, from sum g and sum g * (x - about)."""
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


def _channels(values, name: str, channels: int) -> Any:
    """values (C,), not copied where they are floats that lie together: a gamma, or a moving mean, itself."""
    vector = values if on_device(values) else np.asarray(values, order="C")
    if vector.dtype not in FLOATS:
        vector = vector.astype(np.float64)
    if vector.shape != (channels,):
        raise ShapeError(f"{name} has shape {vector.shape}, wanted ({channels},): one number a channel")
    return vector
