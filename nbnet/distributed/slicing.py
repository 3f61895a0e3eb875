"""Slices: how a batch is cut, which slices a rank has, and sums over all slices by one binary tree.

A batch of G rows is cut into S slices, a power of two, and R ranks, a power of two that divides S, have S / R neighbouring slices each.
Level k of the tree adds slice s and slice s ^ 2^k: the first levels within a rank, the others between ranks r and r ^ 2^j. Since the
pairs are fixed, a sum has the same bits on any number of ranks. Slices without rows are left out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from nbnet.distributed import wire as wires
from nbnet.distributed.ranks import Ranks
from nbnet.errors import ArgumentError
from nbnet.functional import checks
from nbnet.kernels import chunks

Part = TypeVar("Part")
SLICES = 8  # with comm, unless given


def check_slices(slices: Any, ranks: int) -> int:
    """How many slices a batch has. Raises ArgumentError: it is no power of two, or does not fit the number of ranks."""
    count = checks.whole(slices, "slices")
    if count & (count - 1):
        raise ArgumentError(f"slices={count}, expected a power of two, such as {1 << count.bit_length()}: sums follow a binary tree")
    if count < ranks:
        raise ArgumentError(f"slices={count} on {ranks} ranks, expected at least one slice for each rank: slices={ranks}, or fewer ranks")
    return count


class Slicing:
    """How batches are cut.

    Attributes:
        ranks: what sends messages, of one rank if there is no MPI. own: the numbers of this rank's slices.
        rows: of the batch that is run.
    """

    rows = 0

    def __init__(self, slices: int, ranks: Ranks, wire: str | None = None) -> None:
        self.slices, self.ranks, self.wire = check_slices(slices, ranks.size), ranks, wires.get(wire)
        share = self.slices // ranks.size
        self.own = range(ranks.rank * share, (ranks.rank + 1) * share)
        self.levels = ranks.distances

    def bounds(self, number: int, rows: int) -> tuple[int, int]:
        """The rows of a slice in a batch of so many."""
        return chunks.bounds(number, self.slices, rows)

    def share(self, rows: int) -> slice:
        """The rows of a batch that this rank has."""
        return slice(self.bounds(self.own[0], rows)[0], self.bounds(self.own[-1], rows)[1])

    def cuts(self, rows: int) -> list[slice | None]:
        """The rows of each own slice, counted from this rank's first; None without rows."""
        first = self.share(rows).start
        pairs = [self.bounds(number, rows) for number in self.own]
        return [slice(start - first, stop - first) if stop > start else None for start, stop in pairs]

    def lowest(self, rows: int) -> int:
        """The first slice that has rows."""
        return next(number for number in range(self.slices) if self.bounds(number, rows)[1] > 0)

    def rows_of_block(self, rank: int, distance: int, rows: int) -> int:
        """The rows of the ranks whose sums a rank has before the level of this distance: `distance` of them."""
        first, share = rank // distance * distance, self.slices // self.ranks.size
        return self.bounds((first + distance) * share - 1, rows)[1] - self.bounds(first * share, rows)[0]

    # ------------------------------------------------------------------------------------------------------ sums

    def add(self, parts: Sequence[Sequence[float] | None], size: int) -> np.ndarray:
        """The sums over all slices of `size` numbers, in float64. parts: of the own slices; None for one without rows."""
        own = [None if part is None else np.asarray(part, np.float64) for part in parts]
        return self.add_ranks(tree(own, operator.add), size)

    def add_ranks(self, total: np.ndarray | None, size: int = 0) -> np.ndarray:
        """The sum over ranks; None where this one has no rows."""
        has = np.array([0.0 if total is None else 1.0])
        shape = np.shape(total) if total is not None else (size,)
        mine = np.concatenate([has, np.zeros(shape).ravel() if total is None else np.ravel(total)])
        theirs = np.empty_like(mine)
        for distance in self.levels:
            self.ranks.swap(self.ranks.rank ^ distance, mine, theirs)
            if theirs[0]:
                mine = mine + theirs if mine[0] else theirs.copy()
        return mine[1:].reshape(shape)


def tree(parts: Sequence[Part | None], combine: Callable[[Part, Part], Part]) -> Part | None:
    """All parts, a power of two of them, combined by the tree: neighbours first. None is a part that is left out."""
    level = list(parts)
    while len(level) > 1:
        level = [a if b is None else b if a is None else combine(a, b) for a, b in zip(level[::2], level[1::2])]
    return level[0]
