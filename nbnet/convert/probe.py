"""The outputs of two models for a random input beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nbnet.convert.slots import UNKNOWN, Order
from nbnet.errors import ArgumentError, CheckpointError, NbnetError, first_line
from nbnet.layers import Sequential
from nbnet.runtime.arrays import several

ROWS = 3
Run = Callable[[list[np.ndarray]], Sequence[Any]]  # the outputs of another model, in evaluation mode


def check_outputs(model: Sequential, run: Run, orders: Sequence[Order], channels_first: bool, tolerance: float) -> None:
    """Check that another model gives the same outputs.

    Args:
        orders: of the features of each output (nbnet.convert.slots). channels_first: of the other model's inputs and outputs.
        tolerance: the largest difference allowed, as a part of the largest output.
    Raises:
        ArgumentError: they differ, or the other model does not take such an input.
    """
    rng = np.random.default_rng(0)
    shapes: Any = model.input_shape if several(model.input_shape) else (model.input_shape,)
    xs = [rng.standard_normal((ROWS, *shape)).astype(model.dtype) for shape in shapes]
    ours = model.predict(tuple(xs) if several(model.input_shape) else xs[0])
    ours = list(ours) if isinstance(ours, tuple) else [ours]
    given = [np.ascontiguousarray(np.moveaxis(x, -1, 1)) for x in xs] if channels_first else xs
    shown = ", ".join(str(x.shape) for x in given)
    try:
        theirs = [np.asarray(y, np.float64) for y in run(given)]
    except NbnetError:
        raise
    except Exception as error:
        raise ArgumentError(
            f"the other model cannot take an input of shape {shown}: {first_line(error)}; give a model for such inputs, or tolerance=None"
        ) from error
    theirs = [_in_our_order(y, order, channels_first) for y, order in zip(theirs, [*orders, *[None] * len(theirs)])]
    if [y.shape for y in theirs] != [y.shape for y in ours]:
        raise ArgumentError(
            f"the other model gives outputs of shape {', '.join(str(y.shape) for y in theirs)} for an input of shape {shown}, "
            f"expected {', '.join(str(y.shape) for y in ours)} as here: another model?"
        )
    for mine, other in zip(ours, theirs):
        difference, largest = np.abs(mine - other).max(initial=0.0), np.abs(other).max(initial=0.0)
        if not difference <= tolerance * largest:
            raise ArgumentError(
                f"the outputs of both models differ by {difference:.3g} on a random input (the largest is {largest:.3g}, tolerance="
                f"{tolerance:g}): check padding, activations and the order of layers; nothing was changed"
            )


def _in_our_order(y: np.ndarray, order: Order, channels_first: bool) -> np.ndarray:
    if not channels_first or order is UNKNOWN:
        return y
    if y.ndim > 2:
        return np.moveaxis(y, 1, -1)
    return y if order is None else y[:, order]


def check_tolerance(tolerance: Any) -> None:
    """Raises ArgumentError: it is neither None nor a number."""
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 <= tolerance < np.inf):
        raise ArgumentError(f"tolerance={tolerance!r}: expected a number such as 1e-4, or None, which compares no outputs")


def unreadable(path: Any, error: BaseException, expected: str) -> CheckpointError:
    """The error for a file that another library cannot read."""
    return CheckpointError(f"cannot read {path} ({first_line(error)}): expected {expected}")
