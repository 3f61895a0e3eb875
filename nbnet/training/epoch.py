"""One pass over the data: the check before it, its batches, its position and its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from nbnet.errors import ArgumentError, NbnetError
from nbnet.kernels import chunks
from nbnet.layers import Sequential
from nbnet.losses import Loss, PerOutput
from nbnet.losses.base import check_call, name_of
from nbnet.preprocessing import check_rows, check_sample_weight, permutation
from nbnet.runtime.arrays import each, first, to_float

Data = tuple[Any, Any, Any]  # x, y and the weights of the rows, or None


class Batch(NamedTuple):
    """A batch of training."""

    x: Any
    y: Any
    weights: Any  # of the rows, or None
    rows: int  # of the whole batch, of which a rank has a part


USAGES = {  # of data, by what errors call it; others are of fit
    "validation": "validation=(x, y)",
    "evaluation data": "evaluate(x, y)",
    "report data": "report(x, y)",
    "data of lr_range_test": "lr_range_test(trainer, (x, y))",
}


class Sums(NamedTuple):
    """What a loss adds up over rows."""

    loss: float = 0.0
    correct: int | None = 0  # None where the loss counts none
    counted: int = 0  # rows, but for those that the loss ignores

    def plus(self, loss: Any, correct: Any, counted: int = 0) -> Sums:
        both = None if self.correct is None or correct is None else self.correct + int(correct)
        return Sums(self.loss + float(loss), both, self.counted + counted)

    def means(self, divided_by: int) -> dict[str, float]:
        """{"loss": ..., "accuracy": ...}; accuracy only for classification. divided_by: see nbnet.losses.divisor."""
        means = {"loss": self.loss / divided_by}
        if self.correct is not None:
            means["accuracy"] = self.correct / (self.counted or 1)
        return means


class Position(NamedTuple):
    """How far an epoch is, so that a run can stop and resume within it."""

    batches: int = 0
    rows: int = 0
    loss: float = 0.0  # sum over the rows
    correct: int | None = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0
    data_rows: int = 0  # of the data set, or how many batches of the user's own; this and
    batch_size: int = 0  # must be the same when the epoch continues; 0 for batches of the user's own
    counted: int = 0  # rows, but for those that the loss ignores

    @property
    def sums(self) -> Sums:
        return Sums(self.loss, self.correct, self.counted)

    def after(self, rows: int, sums: Sums, lr: float, batches: int, began: float, data_rows: int, batch_size: int) -> Position:
        """The position after one more batch, of `rows` rows."""
        seconds = time.perf_counter() - began
        loss, correct, counted = self.sums.plus(*sums)
        return Position(batches, self.rows + rows, loss, correct, lr, seconds, data_rows, batch_size, counted)

    def check_continues(self, rows: int, batch_size: int) -> None:
        """Check that the epoch can continue on a data set of `rows` rows, or on so many batches of the user's own if batch_size is 0.

        Raises:
            ArgumentError: it has other rows or another batch size.
        """
        if self.batches and (self.data_rows, self.batch_size) != (rows, batch_size):
            before, now = (
                f"{count} rows in batches of {size}" if size else f"{count} batches of your own"
                for count, size in ((self.data_rows, self.batch_size), (rows, batch_size))
            )
            raise ArgumentError(
                f"this run stopped within an epoch of {before}: it cannot continue with {now}; use the same data and batch_size"
            )


def check_data(data: tuple[Any, Any], name: str, model: Sequential, loss: Loss) -> tuple[Any, Any]:
    """x and y as training takes them, batch by batch (`gather`, `in_dtype`): arrays, or tuples of several inputs or outputs.

    Args:
        data: the pair (x, y). name: what errors call it.
    Raises:
        ArgumentError: data is not a pair. ShapeError, DTypeError, DataError, NonFiniteError: x does not fit the model, or y the loss.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ArgumentError(f"{name}: expected a pair (x, y) of arrays, got {_instead_of_pair(data, name)}")
    try:
        x, y = _check_rows(model.check_rows(data[0]), data[1], loss)
        y, rows = loss.check_targets(y, model.output_shape), len(first(x))
        if not isinstance(first(y), np.ndarray) or len(first(y)) != rows:
            got = f"an array with {len(y)} rows" if isinstance(y, np.ndarray) else type(y).__name__
            raise ArgumentError(f"check_targets of the loss returned {got}, expected an array with {rows} rows, one per row of x")
    except NbnetError as error:
        error.args = (f"{name}: {error}", *error.args[1:])
        raise
    return x, y


def check_weights(weights: Any, rows: int, name: str, loss: Loss) -> np.ndarray | None:
    """Sample weights as a float64 array (rows,), or None without any.

    Args:
        rows: of the data. name: what errors call them.
    Raises:
        ArgumentError: the loss takes none. ShapeError, DTypeError, DataError: they are not one number of at least 0 for each row.
    """
    if weights is None:
        return None
    try:
        check_call(getattr(loss, "function", loss), name_of(loss), weights=True)
        return check_sample_weight(weights, rows)
    except NbnetError as error:
        error.args = (f"{name}: {error}", *error.args[1:])
        raise


def with_weights(data: Any) -> tuple[Any, Any]:
    """(x, y) and the weights of data (x, y, sample_weight), or the data and None. Checks nothing."""
    if (
        not isinstance(data, (tuple, list))
        or len(data) != 3
        or all(isinstance(part, (tuple, list)) and len(part) == 2 for part in data[:2])
    ):
        return data, None
    return data[:2], data[2]


def _check_rows(x: Any, y: Any, loss: Loss) -> tuple[Any, Any]:
    """x and y as arrays, where x may be a tuple; y stays as it is if it is one for each output."""
    per_output = isinstance(loss, PerOutput)
    of_first = loss.parts(y)[0] if isinstance(loss, PerOutput) else y
    if type(x) is not tuple:
        x, array = check_rows(x, of_first)
        return x, y if per_output else array
    pairs = [check_rows(part, of_first, f"x[{i}]") for i, part in enumerate(x)]
    return tuple([part for part, _ in pairs]), y if per_output else pairs[0][1]


def _instead_of_pair(data: Any, name: str) -> str:
    """What was passed, and what to write instead."""
    if not isinstance(data, (tuple, list)):
        hint = f"write {USAGES.get(name, 'fit((x, y), epochs=10)')}"
        if name == "validation" and isinstance(data, Real):
            hint = f"for a share of the data write validation_split={data!r}"
        elif hasattr(data, "__getitem__") and not isinstance(data, (str, bytes, Iterable)):
            hint = "for a data set of single examples give a loader of its batches"
        return f"{type(data).__name__}: {hint}"
    parts = f"{len(data)} parts"
    if data and isinstance(data[0], (tuple, list)) and len(data[0]) == 2:
        return f"{parts}: write (x, y), (x_test, y_test), names = data, then fit((x, y), validation=(x_test, y_test), epochs=10)"
    return f"{parts}: for weights of rows write (x, y, sample_weight)"


def count_batches(rows: int, batch_size: int) -> int:
    """How many batches an epoch has. A last batch of one row joins the one before it."""
    count = -(-rows // batch_size)
    return count - 1 if count > 1 and rows - (count - 1) * batch_size == 1 else count


def batches(rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The row numbers of each batch, in shuffled order."""
    starts = [i * batch_size for i in range(count_batches(rows, batch_size))]
    order = permutation(rows, seed, epoch)
    return [order[start:stop] for start, stop in pairwise([*starts, rows])]


def parts(rows: int, count: int) -> list[tuple[int, int]]:
    """Start and stop of `count` parts of a batch, whose sizes differ by at most one; fewer where a part would have one row."""
    if count == 1:  # in every step
        return [(0, rows)]
    count = min(count, max(1, rows // 2))
    return [chunks.bounds(part, count, rows) for part in range(count)]


def gather(x: Any, rows: np.ndarray, model: Sequential) -> Any:
    """The given rows of x, in recycled memory on the host: floats in the model's dtype."""
    return each(lambda part: _gather(part, rows, model), x)


def _gather(x: Any, rows: np.ndarray, model: Sequential) -> np.ndarray:
    out = model.backend.on_host((len(rows), *x.shape[1:]), x.dtype)
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        np.take(x, rows, axis=0, out=out, mode="clip")
    else:  # np.take would copy the whole of it
        out[...] = x[rows]
    return out if x.dtype in (np.uint8, model.dtype) else to_float(out, model.backend.on_host(out.shape, model.dtype))
