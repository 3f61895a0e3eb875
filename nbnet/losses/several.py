"""The loss of a model with several outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.errors import ArgumentError, ShapeError
from nbnet.losses.base import Loss, Started, divisor, start
from nbnet.losses.cross_entropy import SoftmaxCrossEntropy
from nbnet.losses.distances import Triplet
from nbnet.losses.elementwise import Elementwise
from nbnet.runtime.arrays import several
from nbnet.runtime.backend import Backend, get_backend


class PerOutput(Loss):
    """One loss for each output of a model; the loss of a row is their sum.

    If exactly one of the losses counts correct rows, its accuracy is reported; otherwise there is none. All are divided by
    the number of rows, also one with an ignore_index.

    Args:
        losses: in the order of the outputs, all means over the rows, or all sums.
    """

    def __init__(self, losses: tuple[Loss, ...]) -> None:
        reductions = {getattr(loss, "reduction", "mean") for loss in losses}
        if len(reductions) > 1:
            raise ArgumentError(f"the losses {losses!r} have reductions 'mean' and 'sum', expected one for all of them")
        super().__init__(*reductions)
        self.losses = losses

    def __repr__(self) -> str:
        return repr(self.losses)

    def parts(self, y: Any) -> list[Any]:
        """The targets of each loss. Raises ShapeError: y is not one for each."""
        count = len(self.losses)
        if not isinstance(y, (tuple, list)) or len(y) != count:
            got = f"{len(y)}" if isinstance(y, (tuple, list)) else type(y).__name__
            raise ShapeError(f"y has the targets of {count} outputs: expected a tuple of {count} arrays, got {got}")
        return list(y)

    def check_targets(self, y: Any, output_shape: tuple[Any, ...]) -> Any:
        """y as a tuple of what each loss returns for its targets and output.

        Raises:
            ShapeError: y is not one array for each output, or they have different lengths. And as the losses do.
        """
        targets = [loss.check_targets(part, shape) for loss, part, shape in zip(self.losses, self.parts(y), output_shape)]
        lengths = [len(target) for target in targets]
        if len(set(lengths)) > 1:
            raise ShapeError(f"the targets have {', '.join(map(str, lengths))} rows: expected one of each output for every row of x")
        return tuple(targets)

    def _start(
        self, prediction: Any, target: Any, *, sample_weight: Any = None, rows: int | None = None, backend: str | Backend = "parallel"
    ) -> Started:
        """See Loss.

        Args:
            prediction, target: tuples, with one for each loss.
        """
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        rows = rows or divisor(self, len(target[0]))
        parts = zip(self.losses, prediction, target)
        started = [start(loss, p, t, rows=rows, backend=backend, **weights) for loss, p, t in parts]

        def finish(arrays: Sequence[np.ndarray]) -> tuple[float, int | None]:
            rest = iter(arrays)
            results = [one.finish([next(rest) for _ in one.arrays]) for one in started]
            correct = [correct for _, correct in results if correct is not None]
            return sum(float(total) for total, _ in results), correct[0] if len(correct) == 1 else None

        gradient, arrays = tuple([one.gradient for one in started]), [array for one in started for array in one.arrays]
        if not all(one.arrays for one in started):  # some are computed already
            found = finish(get_backend(backend).host(*arrays))
            return Started(gradient, (), lambda arrays: found)
        return Started(gradient, tuple(arrays), finish)


def check_outputs(loss: Loss, output_shape: tuple[Any, ...]) -> None:
    """Check that a loss is for as many outputs as a model has.

    Raises:
        ArgumentError: it is not. (Your own loss may take the tuple of several outputs.)
    """
    outputs = len(output_shape) if several(output_shape) else 1
    if isinstance(loss, PerOutput):
        if len(loss.losses) != outputs or outputs == 1:
            expected = "one loss, not a list" if outputs == 1 else f"{outputs} losses"
            raise ArgumentError(f"got {len(loss.losses)} losses for {outputs} output{'s' if outputs > 1 else ''}: expected {expected}")
    elif isinstance(loss, Triplet):
        if outputs != 3:
            raise ArgumentError(
                f"the loss {loss.name} is for a model with 3 outputs, got {outputs}: use nb.Parallel([trunk, trunk, trunk])"
            )
    elif outputs > 1 and isinstance(loss, (SoftmaxCrossEntropy, Elementwise)):
        losses = ", ".join([repr(loss.name)] * outputs)
        raise ArgumentError(f"the model has {outputs} outputs: expected a loss for each, such as loss=({losses})")
