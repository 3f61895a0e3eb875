"""Dense (fully connected) layer: y = x @ weight + bias."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import checks
from nbnet.functional.moments import Stats
from nbnet.kernels import dense as contract
from nbnet.runtime.backend import Backend, get_backend


class DenseSaved(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    backend: Backend


def dense_forward(x: Any, weight: Any, bias: Any = None, *, backend: str | Backend = "parallel") -> tuple[np.ndarray, DenseSaved]:
    """y = x @ weight + bias.

    Args:
        x: (M, I) float32 or float64. weight: (I, O). bias: (O,) or None.
    Returns:
        y (M, O), and what dense_backward needs.
    Raises:
        ShapeError, DTypeError: an argument does not fit.
    """
    y, saved, _ = multiply(x, weight, bias, get_backend(backend))
    return y, saved


def multiply(
    x: Any, weight: Any, bias: Any, be: Backend, slope: float = 1.0, stats: bool = False
) -> tuple[np.ndarray, DenseSaved, Stats | None]:
    """dense_forward, with what the kernel can do in the same pass (see nbnet.functional.fused).

    Args:
        slope: y is multiplied by this where it is negative: 1 is no activation, 0 is ReLU.
        stats: whether to take the statistics of y's columns, the third result.
    """
    x = checks.floats(x, "x", 2, be=be)
    weight = checks.floats(weight, "weight", 2, x.dtype, be=be)
    if weight.shape[0] != x.shape[1]:
        raise ShapeError(f"x has {x.shape[1]} features, but weight has shape {weight.shape}: expected ({x.shape[1]}, outputs)")
    outputs = weight.shape[1]
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
    return y, DenseSaved(x, weight, be), taken


def dense_backward(
    dy: Any, saved: DenseSaved, *, dweight: Any = None, dbias: Any = None, need_dx: bool = True, need_dweight: bool = True
) -> tuple[Any, Any, Any]:
    """Gradients of dense_forward: dx = dy @ weight.T, dweight = x.T @ dy, dbias = sum of dy over rows.

    Args:
        dy: (M, O). dweight, dbias: arrays to write the parameter gradients into. need_dx: False skips dx (it is then None). need_dweight:
            False skips dweight and dbias.
    Returns:
        dx (M, I), dweight (I, O), dbias (O,).
    """
    checks.from_training(saved)
    x, weight, be = saved
    inputs, outputs = weight.shape
    dy = checks.shaped(dy, "dy", (len(x), outputs), x.dtype, be=be)
    if need_dweight:
        dweight = checks.output(dweight, "dweight", weight.shape, x.dtype, be=be)
        dbias = checks.output(dbias, "dbias", (outputs,), x.dtype, be=be)
        be.kernel("dense.backward_weights")(x, dy, dweight, dbias)
    else:
        dweight = dbias = None
    dx = None
    if need_dx:
        turned = be.scratch("turned", contract.transposed_shape(len(x), inputs, outputs), x.dtype)
        dx = be.empty(x.shape, x.dtype)
        be.kernel("dense.backward_data")(dy, weight, turned, dx)
    return dx, dweight, dbias
