"""One pass over the data: its batches, how far it is, and its metrics."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nbnet.preprocessing import permutation
from nbnet.runtime.backend import Backend


class Position(NamedTuple):
    """How far an epoch is, so that a run can stop and resume within it."""

    batches: int = 0
    rows: int = 0
    loss: float = 0.0  # sum over the rows
    correct: int | None = 0
    lr: float = 0.0  # of the last step
    seconds: float = 0.0
    data_rows: int = 0  # of the data set; this and
    batch_size: int = 0  # must be the same when the epoch continues


def batches(rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The row numbers of each batch, in shuffled order. A last batch of one row joins the one before it."""
    starts = list(range(0, rows, batch_size))
    if len(starts) > 1 and rows - starts[-1] == 1:
        starts.pop()
    order = permutation(rows, seed, epoch)
    return [order[start:stop] for start, stop in pairwise([*starts, rows])]


def gather(x: np.ndarray, rows: np.ndarray, backend: Backend) -> np.ndarray:
    """The given rows of x, in recycled memory on the host."""
    out = backend.on_host((len(rows), *x.shape[1:]), x.dtype)
    return np.take(x, rows, axis=0, out=out, mode="clip")


def add_correct(a: int | None, b: int | None) -> int | None:
    """The sum of two counts of correct rows; None where the loss counts none."""
    return None if a is None or b is None else a + b


def metrics(loss: float, correct: int | None, rows: int) -> dict[str, float]:
    """{"loss": ..., "accuracy": ...} per row; accuracy only for classification."""
    means = {"loss": loss / rows}
    if correct is not None:
        means["accuracy"] = correct / rows
    return means
