"""Activations and their slopes, as formulas inside other kernels."""

import math

from nbnet.kernels.gpu.compile import formula


@formula
def activate(z, slope):
    """z where it is above 0, else slope * z, and 0 where the slope is 0: ReLU of minus infinity is 0 too. NaN stays NaN."""
    low = slope * z if slope > 0 else slope
    return low if z <= 0 else z


@formula
def activate4(z, slope):
    """z where it is above 0, else slope * z."""
    return (
        z[0] if z[0] > 0 else slope * z[0],
        z[1] if z[1] > 0 else slope * z[1],
        z[2] if z[2] > 0 else slope * z[2],
        z[3] if z[3] > 0 else slope * z[3],
    )


@formula
def through4(dy, z, slope):
    """dy times the slope of the activation at z."""
    return (
        dy[0] if z[0] > 0 else slope * dy[0],
        dy[1] if z[1] > 0 else slope * dy[1],
        dy[2] if z[2] > 0 else slope * dy[2],
        dy[3] if z[3] > 0 else slope * dy[3],
    )


@formula
def logistic(x, one):
    e = math.exp(-abs(x))
    return (e if x < 0 else one) / (one + e)


@formula
def sigmoid_slope(dy, y, one):
    return dy * (y * (one - y))


@formula
def tanh_slope(dy, y, one):
    return dy * (one - y * y)
