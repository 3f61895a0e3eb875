"""The API of Stanford's course CS231n, assignment 2 (`cs231n/layers.py`), on nbnet's kernels.

Change `from cs231n.layers import *` into `from nbnet.cs231n import *`: names, arguments, shapes (images are NCHW here, as in
the course) and the effects on the dictionaries are the course's. Arrays are float64 or float32, contiguous or not; other numbers
are converted as NumPy would. Differences:

- dropout's p is the probability to DROP, as in older copies of the course. Its newer text (the one with layer normalisation)
  means the probability to KEEP, "p is the probability of keeping a neuron output": for such a notebook pass 1 - p.
- np.random is neither seeded nor read: a dropout mask depends only on dropout_param["seed"], and differs from NumPy's.
- Training on one value per channel, whose variance is 0, is an error.
- A cache refers to x itself, not to a copy: do not write into x between forward and backward.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nbnet import functional as F
from nbnet.errors import ArgumentError, ShapeError
from nbnet.functional.batchnorm import BatchNormSaved
from nbnet.functional.dropout import DropoutSaved
from nbnet.functional.groupnorm import GroupNormSaved

__all__ = [
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
]


class BatchNormCache(NamedTuple):
    gamma: np.ndarray
    train: bool
    saved: BatchNormSaved


# ------------------------------------------------------------------------------------------------- batch norm


def batchnorm_forward(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, bn_param: dict[str, Any]) -> tuple[np.ndarray, BatchNormCache]:
    """Normalise each feature by the batch's mean and variance, or by their running averages in mode "test".

    Args:
        x: (N, D). gamma, beta: (D,).
        bn_param: "mode": "train" or "test". "eps": added to the variance, default 1e-5. "momentum": the weight of the OLD running
            value, default 0.9. "running_mean", "running_var": (D,), zeros if missing, and stored back:
            running = momentum * running + (1 - momentum) * batch, with the biased variance, in mode "train".
    Returns:
        out (N, D), and the cache for batchnorm_backward.
    Raises:
        ValueError: the mode is neither "train" nor "test", or a shape does not fit.
    """
    mode = _mode(bn_param, "bn_param", "batchnorm")
    eps, momentum = bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    kept = np.asarray(x).dtype
    x, gamma, beta = _floats(x, gamma, beta)
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}, expected (N, D): for images (N, C, H, W) use spatial_batchnorm_forward")
    features = x.shape[1]
    running_mean, running_var = (bn_param.get(name, np.zeros(features, kept)) for name in ("running_mean", "running_var"))
    if mode == "train":
        stats = F.batch_norm_stats(x)
        out, saved = F.batch_norm_apply(x, stats, gamma, beta, eps=eps)
        dtype = kept if np.issubdtype(kept, np.floating) else x.dtype
        running_mean = momentum * running_mean + (1 - momentum) * stats.mean.astype(dtype)
        running_var = momentum * running_var + (1 - momentum) * stats.variance().astype(dtype)
    else:
        out, saved = F.batch_norm_forward(x, gamma, beta, eps=eps, mean=running_mean, var=running_var)
    bn_param["running_mean"] = running_mean
    bn_param["running_var"] = running_var
    return out, BatchNormCache(gamma, mode == "train", saved)


def batchnorm_backward(dout: ArrayLike, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of batchnorm_forward: dx (N, D), dgamma (D,), dbeta (D,). dout: (N, D)."""
    return F.batch_norm_backward(_like(dout, cache.saved.x), cache.saved)


def batchnorm_backward_alt(dout: ArrayLike, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same gradients by the simplified formula, in plain NumPy: a readable check of batchnorm_backward.

    dx = gamma / (N * sqrt(var + eps)) * (N * dout - sum dout - xhat * sum(dout * xhat)), sums over the batch.
    """
    saved = cache.saved
    dout = _like(dout, saved.x)
    xhat = (saved.x - saved.mean) * saved.inv_std
    dgamma = (dout * xhat).sum(axis=0)
    dbeta = dout.sum(axis=0)
    dx = cache.gamma * saved.inv_std * dout
    if cache.train:
        n = len(dout)
        dx = cache.gamma * saved.inv_std / n * (n * dout - dbeta - xhat * dgamma)
    return dx.astype(dout.dtype, copy=False), dgamma.astype(dout.dtype, copy=False), dbeta


def spatial_batchnorm_forward(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, bn_param: dict[str, Any]
) -> tuple[np.ndarray, BatchNormCache]:
    """batchnorm_forward of images x (N, C, H, W): one mean and variance per channel. gamma, beta: (C,). Returns out and the cache."""
    x = _images(x, "x")
    rows, cache = batchnorm_forward(_channels_last(x).reshape(-1, x.shape[1]), gamma, beta, bn_param)
    return _channels_first(rows, x.shape), cache


def spatial_batchnorm_backward(dout: ArrayLike, cache: BatchNormCache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of spatial_batchnorm_forward: dx (N, C, H, W), dgamma (C,), dbeta (C,). dout: (N, C, H, W)."""
    dout = _images(dout, "dout")
    dx, dgamma, dbeta = batchnorm_backward(_channels_last(dout).reshape(-1, dout.shape[1]), cache)
    return _channels_first(dx, dout.shape), dgamma, dbeta


# ----------------------------------------------------------------------------------------- layer and group norm


def layernorm_forward(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, ln_param: dict[str, Any]) -> tuple[np.ndarray, GroupNormSaved]:
    """Normalise each row by its own mean and variance, in training and in test.

    Args:
        x: (N, D). gamma, beta: (D,). ln_param: "eps": added to the variance, default 1e-5.
    Returns:
        out (N, D), and the cache for layernorm_backward.
    """
    x, gamma, beta = _floats(x, gamma, beta)
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}, expected (N, D): for images (N, C, H, W) use spatial_groupnorm_forward")
    return F.layer_norm_forward(x, gamma, beta, eps=ln_param.get("eps", 1e-5))


def layernorm_backward(dout: ArrayLike, cache: GroupNormSaved) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of layernorm_forward: dx (N, D), dgamma (D,), dbeta (D,). dout: (N, D)."""
    return F.layer_norm_backward(_like(dout, cache.x), cache)


def spatial_groupnorm_forward(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, G: int, gn_param: dict[str, Any]
) -> tuple[np.ndarray, GroupNormSaved]:
    """Normalise each image by the mean and variance of each of G groups of channels, in training and in test.

    Args:
        x: (N, C, H, W). gamma, beta: (1, C, 1, 1). G: a divisor of C. gn_param: "eps": added to the variance, default 1e-5.
    Returns:
        out (N, C, H, W), and the cache for spatial_groupnorm_backward.
    """
    x, gamma, beta = _floats(_images(x, "x"), gamma, beta)
    channels = x.shape[1]
    for name, values in (("gamma", gamma), ("beta", beta)):
        if values.shape != (1, channels, 1, 1):
            raise ShapeError(f"{name} has shape {values.shape}, expected (1, {channels}, 1, 1): one number per channel")
    rows, saved = F.group_norm_forward(_channels_last(x), gamma.reshape(-1), beta.reshape(-1), G, eps=gn_param.get("eps", 1e-5))
    return _channels_first(rows, x.shape), saved


def spatial_groupnorm_backward(dout: ArrayLike, cache: GroupNormSaved) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of spatial_groupnorm_forward: dx (N, C, H, W), dgamma and dbeta (1, C, 1, 1). dout: (N, C, H, W)."""
    dout = _like(_images(dout, "dout"), cache.x)
    dx, dgamma, dbeta = F.group_norm_backward(_channels_last(dout), cache)
    return _channels_first(dx, dout.shape), dgamma.reshape(1, -1, 1, 1), dbeta.reshape(1, -1, 1, 1)


# ----------------------------------------------------------------------------------------------------- dropout


def dropout_forward(x: ArrayLike, dropout_param: dict[str, Any]) -> tuple[np.ndarray, tuple[dict[str, Any], DropoutSaved]]:
    """Inverted dropout: in mode "train" drop each element with probability p and divide the others by 1 - p; else x itself.

    Args:
        x: any shape.
        dropout_param: "mode": "train" or "test". "p": the probability to DROP, 0 to 1 (the course's newer text means the
            probability to KEEP; its older copies, and nbnet, to drop). "seed": optional, 0 to 2^64 - 1: every call with the
            same seed and shape has the same mask, as gradient checks need. Without a seed each call has a new mask.
    Returns:
        out, and the cache for dropout_backward. It has no mask: the mask is computed again from the seed.
    Raises:
        ValueError: the mode, p or the seed is invalid.
    """
    mode = _mode(dropout_param, "dropout_param", "dropout")
    if "p" not in dropout_param:
        raise ArgumentError('dropout_param has no "p": expected the probability to drop, from 0 to 1')
    seed = dropout_param.get("seed")
    if seed is None:
        seed = secrets.randbits(64)
    elif not isinstance(seed, (int, np.integer)) or not 0 <= seed < 1 << 64:
        raise ArgumentError(f'dropout_param["seed"]={seed!r}: expected a whole number from 0 to 2^64 - 1')
    (x,) = _floats(x)
    out, saved = F.dropout_forward(x, dropout_param["p"], seed=int(seed), train=mode == "train")
    return out, (dropout_param, saved)


def dropout_backward(dout: ArrayLike, cache: tuple[dict[str, Any], DropoutSaved]) -> np.ndarray:
    """dx of dropout_forward: dout / (1 - p) where x was kept, 0 where it was dropped."""
    (dout,) = _floats(dout)
    return F.dropout_backward(dout, cache[1])


# ----------------------------------------------------------------------------------------------------- helpers


def _mode(param: dict[str, Any], name: str, layer: str) -> str:
    mode = param.get("mode")
    if mode not in ("train", "test"):
        raise ArgumentError(f'Invalid forward {layer} mode "{mode}": {name}["mode"] must be "train" or "test"')
    return mode


def _floats(*arrays: Any) -> list[np.ndarray]:
    """The arrays in one dtype, float32 or float64, as NumPy's type promotion chooses it."""
    converted = [np.asarray(array) for array in arrays]
    dtype = np.result_type(np.float32, *(array.dtype for array in converted))
    return [array.astype(dtype, copy=False) for array in converted]


def _like(dout: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(dout).astype(x.dtype, copy=False)


def _images(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 4:
        raise ShapeError(f"{name} has shape {x.shape}, expected images (N, C, H, W)")
    return x


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _channels_first(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Contiguous (N, C, H, W) from channels-last data."""
    count, channels, height, width = shape
    return np.ascontiguousarray(rows.reshape(count, height, width, channels).transpose(0, 3, 1, 2))
