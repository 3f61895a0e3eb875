"""Channels on another axis than the last: batch normalisation moves them there, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nbnet.errors import ShapeError
from nbnet.runtime.backend import Backend


def channels_last(x: Any, axis: int, be: Backend) -> Any:
    """x with the channels, which are on that axis, as its last one."""
    return x if axis == x.ndim - 1 else _swap(x, axis, x.ndim, be)


def channels_back(x: Any, axis: int, be: Backend) -> Any:
    """x with the channels, which are its last axis, on that axis."""
    if axis == x.ndim - 1:
        return x
    shape = (*x.shape[:axis], x.shape[-1], *x.shape[axis:-1])
    return _swap(x.reshape(*x.shape[:axis], -1, x.shape[-1]), axis, axis + 2, be).reshape(shape)


def _swap(x: Any, axis: int, end: int, be: Backend) -> Any:
    """x with `axis` moved behind the axes up to `end`."""
    before, after = x.shape[:axis], x.shape[axis + 1 : end]
    y = be.empty((*before, *after, x.shape[axis]), x.dtype)
    a, b, c = math.prod(before), x.shape[axis], math.prod(after)
    be.kernel("array.swap")(x.reshape(a, b, c, 1), y.reshape(a, c, b, 1))
    return y


def weights_last(weights: Any, shape: tuple[int, ...], axis: int, dtype: np.dtype) -> np.ndarray:
    """weights broadcast to `shape`, x's with the channels last, or to one number a row where channels do not differ.

    axis: of x's channels, before they came last; weights of x's rank have them there too.
    Raises:
        ShapeError: they do not broadcast.
    """
    w = np.asarray(weights, dtype)
    w = np.moveaxis(w, axis, -1) if w.ndim == len(shape) else w.reshape(w.shape + (1,) * (len(shape) - w.ndim))
    if w.shape[-1] == 1:
        shape = (*shape[:-1], 1)
    try:
        return np.broadcast_to(w, shape)
    except ValueError:
        raise ShapeError(f"weights have shape {np.shape(weights)}, expected one that broadcasts to {shape}") from None
