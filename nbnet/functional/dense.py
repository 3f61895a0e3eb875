"""Dense (fully connected) layer: y = x @ weight + bias, with an activation or without."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.batchnorm import BatchNormSaved
from nbnet.functional.epilogue import checked_slope, through_activation
from nbnet.functional.moments import Stats
from nbnet.kernels import chunks
from nbnet.kernels import dense as contract
from nbnet.runtime.backend import Backend, get_backend

FEW = 8  # inputs of a layer for which dense_backward_norm is the quicker way


class DenseSaved(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    stats: Stats | None  # of y's columns, where they were asked for
    y: np.ndarray | None  # where there is an activation: its gradient follows from y
    slope: float
    backend: Backend


def dense_forward(
    x, weight, bias=None, *, slope: float = 1.0, stats: bool = False, backend: str | Backend = "parallel"
) -> tuple[np.ndarray, DenseSaved]:
    """y = x @ weight + bias.

    Args:
        x: (M, I) float32 or float64. weight: (I, O). bias: (O,) or None.
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 a fused ReLU.
        stats: whether to take the statistics of y's columns in the same pass, for a batch_norm_apply that follows: saved.stats.
    Returns:
        y (M, O), and what dense_backward needs.
    Raises:
        ShapeError, DTypeError, ArgumentError: an argument does not fit.
    """
    be = get_backend(backend)
    x = checks.floats(x, "x", 2, be=be)
    weight = checks.floats(weight, "weight", 2, x.dtype, be=be)
    if weight.shape[0] != x.shape[1]:
        raise ShapeError(f"x has {x.shape[1]} features, but weight has shape {weight.shape}: wanted ({x.shape[1]}, outputs)")
    slope, outputs = checked_slope(slope), weight.shape[1]
    bias = be.no_bias(outputs, x.dtype) if bias is None else checks.shaped(bias, "bias", (outputs,), x.dtype, be=be)
    y = be.empty((len(x), outputs), x.dtype)
    taken = None
    if stats:
        partials = be.scratch("partials", (contract.grid(len(x), outputs, x.shape[1])[0], 3, outputs), np.float64)
        mean, m2 = be.vectors(2, outputs, np.float64)
        taken = Stats(mean, m2, float(len(x)))
        be.kernel("dense.forward")(x, weight, bias, slope, y, partials, mean, m2)
    else:
        be.kernel("dense.forward")(x, weight, bias, slope, y, None, None, None)
    return y, DenseSaved(x, weight, taken, None if slope == 1 else y, slope, be)


def dense_backward(dy, saved: DenseSaved, *, dweight=None, dbias=None, need_dx: bool = True):
    """Gradients of dense_forward: dx = dy @ weight.T, dweight = x.T @ dy, dbias = sum of dy over rows; dy through the activation first.

    Args:
        dy: (M, O). dweight, dbias: arrays to write the parameter gradients into. need_dx: False spares dx (it is then None).
    Returns:
        dx (M, I), dweight (I, O), dbias (O,).
    """
    x, weight, _, y, slope, be = saved
    inputs, outputs = weight.shape
    dy = through_activation(checks.shaped(dy, "dy", (len(x), outputs), x.dtype, be=be), y, slope, be)
    dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
    dbias = checks.output(dbias, "dbias", (outputs,), x.dtype, be=be)
    be.kernel("dense.backward_weights")(x, dy, dweight, dbias)
    dx = None
    if need_dx:
        turned = be.scratch("turned", contract.transposed_shape(len(x), inputs, outputs), x.dtype)
        dx = be.empty(x.shape, x.dtype)
        be.kernel("dense.backward_data")(dy, weight, turned, dx)
    return dx, dweight, dbias


def dense_backward_norm(dy, norm: BatchNormSaved, coefficients, sum_dy, saved: DenseSaved, *, dweight=None, dbias=None):
    """dweight and dbias of a dense layer with a batch norm behind it, without the gradient between the two: for a first layer.

    Args:
        dy: (M, O), after any activation of the batch norm's. norm: what its forward saved, without weights. coefficients, sum_dy: of
            batch_norm_backward_coefficients, dbeta there.
    """
    x, weight, be = saved.x, saved.weight, saved.backend
    inputs, outputs = weight.shape
    dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
    dbias = checks.output(dbias, "dbias", (outputs,), x.dtype, be=be)
    parts = chunks.count(len(x), outputs)
    products = be.scratch("products", (parts, inputs, outputs), x.dtype)
    moments = be.scratch("moments", (parts, inputs, inputs + 1), np.float64)
    of_norm = (norm.x, weight, norm.mean, norm.affine[0], sum_dy, *coefficients)
    be.kernel("dense.backward_weights_norm")(x, dy, *of_norm, products, moments, dweight, dbias)
    return dweight, dbias
