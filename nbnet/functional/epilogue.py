"""The activation that convolution and dense apply before they write y: its slope, and the way back through it."""

from __future__ import annotations

from typing import Any

from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.runtime.backend import Backend


def checked_slope(slope: float) -> float:
    """The slope as a float.

    Raises:
        ArgumentError: it is negative or NaN: y would not have the sign of what it was made of, and backward has y alone.
    """
    if not slope >= 0:
        raise ArgumentError(f"slope={slope!r}: wanted 1 (no activation), 0 (ReLU) or another number above 0 (leaky ReLU)")
    return float(slope)


def through_activation(dy: Any, y: Any, slope: float, be: Backend) -> Any:
    """dy times the slope of the activation where it gave y; dy itself where there was none and no y was kept."""
    if y is None:
        return dy
    dy = checks.shaped(dy, "dy", y.shape, y.dtype, be=be)
    g = be.empty(y.shape, y.dtype)
    name, options = ("relu", ()) if slope == 0 else ("leaky_relu", (slope,))
    be.kernel(f"activation.{name}_backward")(dy.reshape(-1), y.reshape(-1), *options, g.reshape(-1))
    return g
