"""Batch normalisation in NumPy: the definition. See the contract in `nbnet.kernels.batchnorm`."""

import numpy as np

from nbnet.kernels import load
from nbnet.kernels.activations import SMOOTH, TABLE
from nbnet.kernels.tables import made_from_table

QUIET = np.errstate(invalid="ignore")  # infinity times 0 is NaN, without a warning, as in the compiled kernels


def moments(x, weights, partials, mean, m2):
    x = x.astype(np.float64, copy=False)
    w = np.ones((len(x), 1)) if weights is None else weights.astype(np.float64)
    x = x if weights is None else np.where(w > 0, x, 0)
    total = w.sum(axis=0)
    mean[:] = (w * x).sum(axis=0) / total
    m2[:] = (w * (x - mean) ** 2).sum(axis=0)


def apply(x, center, scale, shift, slope, y):
    y[:] = _activated(x, center, scale, shift, slope)


@QUIET
def backward_reduce(dy, x, weights, center, scale, shift, slope, partials, sum_g, sum_gx):
    g = _through_activation(dy, x, center, scale, shift, slope).astype(np.float64)
    sum_g[:] = _unless_masked(weights, g).sum(axis=0)
    sum_gx[:] = _unless_masked(weights, g * (x - center)).sum(axis=0)


@QUIET
def backward_apply(dy, x, weights, center, scale, shift, slope, a, b, c, dx):
    g = _through_activation(dy, x, center, scale, shift, slope)
    w = 1 if weights is None else weights
    dx[:] = a * _unless_masked(weights, g) + _unless_masked(weights, w * (b + c * (x - center)))


def apply_max_pool(x, center, scale, shift, slope, y):
    y[:] = _activated(_windows(x), center, scale, shift, slope).max(axis=3)


def backward_reduce_max_pool(dy, x, center, scale, shift, slope, partials, sum_g, sum_gx):
    g = _to_winners(dy, x, center, scale, shift, slope)
    backward_reduce(g, x.reshape(g.shape), None, center, scale, shift, slope, partials, sum_g, sum_gx)


def backward_apply_max_pool(dy, x, center, scale, shift, slope, a, b, c, dx):
    g = _to_winners(dy, x, center, scale, shift, slope)
    backward_apply(g, x.reshape(g.shape), None, center, scale, shift, slope, a, b, c, dx.reshape(g.shape))


# with an activation of the table
TEMPLATES = {
    "apply_NAME": """
def apply_NAME(x, center, scale, shift, OPTIONS, y):
    forward((x - center) * scale + shift, OPTIONS, y)
""",
    "backward_reduce_NAME": """
def backward_reduce_NAME(dy, y, x, center, scale, shift, OPTIONS, partials, g, sum_g, sum_gx):
    backward(dy, VALUE, OPTIONS, g)
    reduce(g, x, center, sum_g, sum_gx)
""",
}


def _make(name, text, row):
    z = "(x - center) * scale + shift"
    kernels = {each: load(f"activation.{row.name}_{each}", "numpy") for each in ("forward", "backward")}
    scope = {**kernels, "reduce": _sums, "__name__": __name__}
    exec(text.replace("VALUE", "y" if row.saves == "y" else z), scope)
    return scope


def _sums(g, x, center, sum_g, sum_gx):
    wide = g.astype(np.float64)
    sum_g[:] = wide.sum(axis=0)
    sum_gx[:] = (wide * (x - center)).sum(axis=0)


__getattr__, __dir__ = made_from_table(globals(), TEMPLATES, _make, [TABLE[name] for name in SMOOTH])


def _unless_masked(weights, v):
    """v, but 0 where the weight is 0 and v is not finite."""
    return v if weights is None else np.where((weights > 0) | np.isfinite(v), v, v.dtype.type(0))


@QUIET
def _activated(x, center, scale, shift, slope):
    z = (x - center) * scale + shift
    return np.where(z > 0, z, z.dtype.type(slope) * z)


@QUIET
def _through_activation(dy, x, center, scale, shift, slope):
    z = (x - center) * scale + shift
    return np.where(z > 0, dy, dy.dtype.type(slope) * dy)


def _windows(x):
    """The whole windows of x as (N, OH, OW, 4, C), in row-major order within a window."""
    n, height, width, channels = x.shape
    whole = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
    return whole.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, 4, channels)


def _to_winners(dy, x, center, scale, shift, slope):
    """The gradient of the activation as rows (M, C): dy at the winner of each window, the first of equals; 0 elsewhere."""
    _, height, width, channels = x.shape
    winner = _activated(_windows(x), center, scale, shift, slope).argmax(axis=3)
    g = np.zeros_like(x)
    for i in range(4):
        g[:, i // 2 : height // 2 * 2 : 2, i % 2 : width // 2 * 2 : 2] = np.where(winner == i, dy, 0)
    return g.reshape(-1, channels)
