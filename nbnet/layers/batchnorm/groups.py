"""Ghost batches: which rows are normalised together, and what the moving statistics take from the groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from nbnet.errors import ShapeError
from nbnet.functional import Stats, merge_stats


def slices(examples: int, size: int | None, strided: bool) -> list[slice]:
    """The groups of a batch, as slices of its first axis. Strided groups are equal. A last contiguous group may be smaller, but a single
    example joins the group before it: on vectors it has no variance.

    Raises:
        ShapeError: the batch cannot be cut into strided groups of that size.
    """
    if size is None or size >= examples:
        return [slice(None)]
    if strided:
        if examples % size:
            raise ShapeError(
                f"a batch of {examples} cannot be cut into strided groups of {size}: use a multiple of {size}, or groups='contiguous'"
            )
        count = examples // size
        return [slice(group, None, count) for group in range(count)]
    starts = [start for start in range(0, examples, size) if size == 1 or start != examples - 1]
    return [slice(start, stop) for start, stop in pairwise([*starts, examples])]


def combine(groups: Sequence[Stats], pooled: bool, ddof: float) -> tuple[Any, Any, Any]:
    """Mean, m2 and divisor of a batch for the moving statistics (the variance is m2 / divisor): of all rows (pooled), or of the
    means of the groups' values.

    Of one group they stay on the GPU, if there they are. Several are merged on the host.
    """
    if pooled or len(groups) == 1:
        whole = merge_stats(groups) if len(groups) > 1 else groups[0]
        return whole.mean, whole.m2, whole.count - ddof
    return np.mean([np.asarray(g.mean) for g in groups], axis=0), np.mean([g.variance(ddof) for g in groups], axis=0), 1.0
