"""Operations on whole parameters, by nbnet's kernels: norms, sums, and orthogonal matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbnet.kernels import dense
from nbnet.runtime.backend import Backend

# The polynomial that Newton-Schulz iterates: a x + b x^3 + c x^5, steep at 0, and between about 0.7 and 1.2 after five iterations
# (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
A, B, C = 3.4445, -4.7750, 2.0315


def squares(backend: Backend, *arrays: Any) -> list[float]:
    """The sum of the squares of each flat array."""
    totals = [backend.empty((1,), np.float64) for _ in arrays]
    for array, total in zip(arrays, totals):
        backend.kernel("array.squares")(array, total)
    return [float(total[0]) for total in backend.host(*totals)]


def norms(backend: Backend, *arrays: Any) -> list[float]:
    """The L2 norms of flat arrays."""
    return [math.sqrt(total) for total in squares(backend, *arrays)]


def add_scaled(backend: Backend, y: Any, x: Any, factor: float) -> None:
    """y += factor * x, for arrays of one shape."""
    x, y = x.reshape(-1), y.reshape(-1)
    scaled = backend.empty(x.shape, x.dtype)
    backend.kernel("array.scale")(x, factor, scaled)
    backend.kernel("array.add")(y, scaled, y)


def product(backend: Backend, x: Any, y: Any) -> Any:
    """x @ y."""
    result = backend.empty((x.shape[0], y.shape[1]), x.dtype)
    backend.kernel("dense.forward")(x, y, backend.no_bias(y.shape[1], x.dtype), 1.0, result, None, None, None)
    return result


def gram(backend: Backend, x: Any, of_rows: bool) -> Any:
    """x @ x.T, or x.T @ x."""
    rows, columns = x.shape
    if of_rows:
        result = backend.empty((rows, rows), x.dtype)
        turned = backend.scratch("turned", dense.transposed_shape(rows, rows, columns), x.dtype)
        backend.kernel("dense.backward_data")(x, x, turned, result)
    else:
        result = backend.empty((columns, columns), x.dtype)
        backend.kernel("dense.backward_weights")(x, x, result, backend.empty((columns,), x.dtype))
    return result


def orthogonalized(backend: Backend, matrix: Any, iterations: int) -> Any:
    """About the orthogonal matrix nearest to a matrix (I, O), by Newton-Schulz iteration: all its singular values become about 1.

        X = matrix / |matrix|;   X <- A X + B (X X^T) X + C (X X^T)^2 X,  so many times

    A matrix of zeros stays one.
    """
    (norm,) = norms(backend, matrix.reshape(-1))
    x = backend.empty(matrix.shape, matrix.dtype)
    backend.kernel("array.scale")(matrix.reshape(-1), 1 / norm if norm > 0 else 0.0, x.reshape(-1))
    of_rows = matrix.shape[0] <= matrix.shape[1]
    for _ in range(iterations):
        inner = gram(backend, x, of_rows)
        factor = product(backend, inner, inner)
        backend.kernel("array.scale")(factor.reshape(-1), C, factor.reshape(-1))
        add_scaled(backend, factor, inner, B)
        following = product(backend, factor, x) if of_rows else product(backend, x, factor)
        add_scaled(backend, following, x, A)
        x = following
    return x
