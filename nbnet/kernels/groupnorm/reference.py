"""Group normalisation in NumPy: the definition. See the contract in `nbnet.kernels.groupnorm`."""

import numpy as np

from nbnet.kernels.groupnorm import TINY

GROUP = (1, 3)  # the axes of (N, P, G, W) that share statistics


def forward(x, groups, gamma, beta, eps, centered, scratch, mean, inv_std, y):
    values = _grouped(x, groups).astype(np.float64)
    origin = values[:, :1, :, :1]
    mean[:] = (origin + (values - origin).mean(axis=GROUP, keepdims=True))[:, 0, :, 0] if centered else 0
    var = ((values - mean[:, None, :, None]) ** 2).mean(axis=GROUP)
    inv_std[:] = 1 / np.sqrt(np.maximum(var + eps, TINY))
    y[:] = _xhat(x, groups, mean, inv_std) * gamma + beta


def backward(dy, x, groups, gamma, mean, inv_std, centered, partials, dgamma, dbeta, dx):
    xhat = _xhat(x, groups, mean, inv_std)
    dgamma[:] = (dy * xhat).sum(axis=(0, 1))
    dbeta[:] = dy.sum(axis=(0, 1), dtype=np.float64)
    g, xhat = _grouped(dy.astype(np.float64) * gamma, groups), _grouped(xhat, groups)
    mean_g = g.mean(axis=GROUP, keepdims=True) if centered else 0
    mean_gx = (g * xhat).mean(axis=GROUP, keepdims=True)
    dx[:] = (inv_std[:, None, :, None] * (g - mean_g - xhat * mean_gx)).reshape(x.shape)


def _grouped(x, groups):
    """(N, P, C) as (N, P, G, W)."""
    return x.reshape(x.shape[0], x.shape[1], groups, x.shape[2] // groups)


def _xhat(x, groups, mean, inv_std):
    """In float64."""
    return ((_grouped(x, groups) - mean[:, None, :, None]) * inv_std[:, None, :, None]).reshape(x.shape)
