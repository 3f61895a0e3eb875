"""Channels on another axis than the last: batch normalisation moves them there, and back."""

from __future__ import annotations

import math
from typing import Any

from nbnet.backend import Backend


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
