"""Prediction, split over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nbnet.distributed.ranks import Ranks
from nbnet.functional import checks
from nbnet.layers import Sequential
from nbnet.runtime.arrays import each, first, in_dtype, take


def predict(model: Sequential, x: Any, comm: Any, batch_size: int = 256) -> Any:
    """What model.predict(x) returns, on all ranks: each computes some of the batches, and reads only their rows of x.

    Args:
        comm: MPI.COMM_WORLD of mpi4py, or None. The rest as in Sequential.predict; all ranks call it with the same.
    Raises:
        as Sequential.predict does; RankError: another rank has failed.
    """
    ranks = Ranks(comm)
    with ranks.together():
        x, size = model.check_rows(x), checks.whole(batch_size, "batch_size")
        starts = range(0, len(first(x)), size)[ranks.rank :: ranks.size]

        def results() -> Iterator[Any]:
            for start in starts:
                yield each(np.array, model.forward(in_dtype(take(x, slice(start, start + size)), model.dtype))[0])

        found = list(ranks.dealt(results()))
        return each(lambda *parts: np.concatenate(parts), *found) if found else model.predict(x, size)
