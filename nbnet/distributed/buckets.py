"""The gradients of all slices, added while backward continues.

The parameters of a model lie in one flat array for each slice, in their order in the model. Backward completes them from the last to the
first. When a bucket of neighbouring parameters is complete, its slices are added on this rank, and its sum goes on to other ranks: a small
one by recursive doubling, a large one by recursive halving and then doubling (Thakur, Rabenseifner and Gropp 2005), which for each element
is the same tree of additions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from nbnet.distributed.slicing import Slicing, tree
from nbnet.layers.parameters import ALIGNMENT, Param

SMALLEST = 1 << 18  # bytes of a bucket, but for the last one
LARGE = 1 << 16  # bytes from which a bucket is halved


class Flat:
    """Gradients of parameters, for each own slice in one flat array.

    Args:
        params: of the model, in order, each once.
    """

    def __init__(self, params: Sequence[Param], count: int, backend: Any, dtype: np.dtype) -> None:
        step, self.bounds, at = ALIGNMENT // dtype.itemsize, [], 0
        for param in params:
            self.bounds.append((at, at + param.value.size))
            at = -(-(at + param.value.size) // step) * step
        self.params, self.backend = list(params), backend
        self.arrays = [_zeros(at, dtype) for _ in range(count)]
        self.index = {param: i for i, param in enumerate(params)}

    def view(self, number: int, param: Param) -> Any:
        """The gradient of a parameter in the own slice of this number."""
        start, stop = self.bounds[self.index[param]]
        return self.arrays[number][start:stop].reshape(param.value.shape)

    def cut(self, steps: Sequence[Any]) -> dict[int, tuple[int, int]]:
        """The buckets: by the number of the step whose backward completes it, the first and the last but one element.

        Args:
            steps: of the model, in the order of forward; the parameters are those of the model itself.
        """
        lowest: dict[Param, int] = {}
        for number, step in enumerate(steps):
            for param in step.params.values():
                lowest.setdefault(param, number)
        found: dict[int, tuple[int, int]] = {}
        stop = start = self.bounds[-1][1] if self.bounds else 0
        for number in reversed(range(len(steps))):
            own = [self.bounds[self.index[param]] for param, at in lowest.items() if at == number]
            start = min([start, *(first for first, _ in own)])
            if own and (stop - start) * self.arrays[0].itemsize >= SMALLEST:
                found[number] = start, stop
                stop = start
        if stop > 0:
            found[min(lowest.values(), default=0)] = 0, found.get(min(lowest.values(), default=0), (0, stop))[1]
        return found


def _zeros(size: int, dtype: np.dtype) -> np.ndarray:
    """A flat array that starts where vector loads are fastest."""
    buffer = np.zeros(size + ALIGNMENT // dtype.itemsize, dtype)
    first = -buffer.ctypes.data % ALIGNMENT // dtype.itemsize
    return buffer[first : first + size]


class Reduction:
    """Adds the gradients of one model on all slices and ranks, and writes them into its parameters.

    Args:
        active: the numbers, among the own slices, of those that have rows. rows: of the batch.
    """

    def __init__(self, slicing: Slicing, flat: Flat, buckets: dict[int, tuple[int, int]], active: Sequence[int], rows: int) -> None:
        self.slicing, self.flat, self.buckets, self.rows = slicing, flat, buckets, rows
        self.parts = [flat.arrays[i] if i in active else None for i in range(len(slicing.own))]
        self.total = flat.arrays[active[0]] if active else flat.arrays[0]
        self.left = sorted(buckets, reverse=True)  # not complete yet
        self.running: list[Iterator[None]] = []
        self.buffers: dict[int, np.ndarray] = {}

    def done(self, number: int, be: Any) -> None:
        """The backward of the step of this number is done."""
        if number in self.left:
            self.left.remove(number)
            start, stop = self.buckets[number]
            add = be.kernel("array.add")

            def combine(a: Any, b: Any) -> Any:
                add(a, b, a)
                return a

            tree([None if part is None else part[start:stop] for part in self.parts], combine)
            if self.slicing.levels:
                be.run(partial(self._start, number))
        if self.slicing.levels:
            be.run(self._poll)

    def finish(self, be: Any) -> None:
        """Wait until all buckets are added, and write the gradients into the parameters."""
        for number in list(self.left):
            self.done(number, be)
        if self.slicing.levels:
            be.run(self._wait)
        for param, (start, stop) in reversed(list(zip(self.flat.params, self.flat.bounds))):
            be.run(np.copyto, param.grad, self.total[start:stop].reshape(param.grad.shape))

    # --------------------------------------------------------------------------------------------- between ranks

    def _start(self, number: int) -> None:
        start, stop = self.buckets[number]
        self.running.append(self._exchange(self.total[start:stop], number))
        next(self.running[-1], None)

    def _poll(self) -> None:
        """Go on with what has arrived."""
        for exchange in list(self.running):
            if next(exchange, self) is self:
                self.running.remove(exchange)

    def _wait(self) -> None:
        tests = 0
        while self.running:
            self._poll()
            tests += 1
            if tests % 100 == 0:
                self.slicing.ranks.check()

    def _exchange(self, mine: np.ndarray, number: int) -> Iterator[None]:
        """One bucket. It yields while it waits for messages."""
        slicing, me, tag = self.slicing, self.slicing.ranks.rank, number + 1
        halves = mine.nbytes >= LARGE
        start, stop, ranges = 0, len(mine), []
        for distance in slicing.levels:
            partner = me ^ distance
            kept, sent = (start, stop), (start, stop)
            if halves:
                middle = (start + stop) // 2
                kept, sent = ((start, middle), (middle, stop)) if me < partner else ((middle, stop), (start, middle))
                ranges.append((partner, kept, sent))
            yield from self._swap(partner, mine, sent, kept, tag)
            start, stop = kept
            own, theirs = mine[start:stop], self._received(number, start, stop)
            has, has_theirs = (slicing.rows_of_block(rank, distance, self.rows) > 0 for rank in (me, partner))
            if has_theirs and has:
                if slicing.wire is not None:  # both ranks add the same two numbers
                    own[...] = slicing.wire.decode(slicing.wire.encode(own))
                np.add(own, theirs, out=own)
            elif has_theirs:
                own[...] = theirs
        for partner, kept, sent in reversed(ranges):
            yield from self._swap(partner, mine, kept, sent, tag)
            mine[slice(*sent)] = self._received(number, *sent)
            if slicing.wire is not None:  # what the others have
                mine[slice(*kept)] = slicing.wire.decode(slicing.wire.encode(mine[slice(*kept)]))

    def _swap(self, partner: int, mine: np.ndarray, sent: tuple[int, int], received: tuple[int, int], tag: int) -> Iterator[None]:
        """Send a range of a bucket, and receive one into the buffer beside it."""
        ranks, wire, number = self.slicing.ranks, self.slicing.wire, tag - 1
        if number not in self.buffers:
            self.buffers[number] = np.empty(mine.shape, mine.dtype if wire is None else wire.dtype)
        data = mine[slice(*sent)]
        requests = ranks.start(partner, data if wire is None else wire.encode(data), self.buffers[number][slice(*received)], tag)
        while not ranks.is_done(requests):
            yield

    def _received(self, number: int, start: int, stop: int) -> np.ndarray:
        data, wire = self.buffers[number][start:stop], self.slicing.wire
        return data if wire is None else wire.decode(data)
