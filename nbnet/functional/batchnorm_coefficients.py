"""The coefficients of batch normalisation: arithmetic on C numbers between its kernels, in float64. Here the dialects differ.

The functions take arrays or the numbers of one channel, and use operators alone, so that they also run inside a kernel
(`Backend.channelwise`). T is the dtype of the kernels' arrays; m2 / divisor is the variance; r and k are renormalisation's.
"""

from functools import cache

import numpy as np


@cache
def affine_of(T):
    """mean, 1 / std, scale in float64, and center, scale, shift of the kernels in T: y = (x - center) * scale + shift."""

    def affine(mean, m2, divisor, gamma, beta, eps):
        inv_std = 1 / (np.float64(m2) / divisor + eps) ** 0.5
        scale = np.float64(gamma) * inv_std
        center = T(mean)
        return mean, inv_std, scale, center, scale, np.float64(beta) + (np.float64(center) - np.float64(mean)) * scale

    return affine


@cache
def corrected_affine_of(T):
    """The same with the correction of renormalisation."""

    def affine(mean, m2, divisor, gamma, beta, eps, r, k):
        inv_std = 1 / (np.float64(m2) / divisor + eps) ** 0.5
        scale = np.float64(gamma) * inv_std * r
        center = T(mean)
        shift = np.float64(beta) + np.float64(gamma) * k + (np.float64(center) - np.float64(mean)) * scale
        return mean, inv_std, scale, center, scale, shift

    return affine


def about_mean(sum_g, sum_gx, mean, center):
    """sum g * (x - mean), from sum g * (x - center)."""
    return (sum_gx - (np.float64(mean) - np.float64(center)) * sum_g,)


def constant_statistics(sum_g, sum_gx, about, mean, inv_std, scale, r, k):
    """dgamma, dbeta, and a, b, c of dx = a * g + w * (b + c * (x - center)), if mean and variance are constants."""
    xhat_g = (sum_gx - (np.float64(mean) - np.float64(about)) * sum_g) * inv_std
    return xhat_g * r + sum_g * k, sum_g, scale, 0.0, 0.0


def batch_statistics(sum_g, sum_gx, about, mean, inv_std, scale, r, k, center, divisor, count):
    """The same, if they are statistics of x."""
    xhat_g = (sum_gx - (np.float64(mean) - np.float64(about)) * sum_g) * inv_std
    c = -scale * xhat_g * inv_std / divisor
    b = -scale * sum_g / count - c * (np.float64(mean) - np.float64(center))
    return xhat_g * r + sum_g * k, sum_g, scale, b, c
