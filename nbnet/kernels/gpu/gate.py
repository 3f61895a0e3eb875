"""The gate of a training step: updates write nothing if a loss of the step is not finite. The host need not wait to know it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import kernel
from nbnet.kernels.gpu.launch import THREADS, row_sum, run

LARGEST = 2.0**1000  # sums below it cannot overflow on the host, which adds in another order


@kernel
def _close_if_not_finite(losses, count, largest, gate):
    """One block. The gate stays closed once it is."""
    total = 0.0
    for i in range(cuda.threadIdx.x, count, THREADS):  # type: ignore[call-overload]
        total += abs(losses[i])
    total = row_sum(total, THREADS, losses)
    if cuda.threadIdx.x == 0 and not total < largest:
        gate[0] = 0


class Gate:
    """A gate, which is open at first.

    Attributes:
        state: (1,) int32 on the GPU, 1 while it is open.
    """

    def __init__(self) -> None:
        self.state = device.pool().empty((1,), np.int32)
        self.state[...] = 1

    def check(self, losses: Any) -> None:
        """Close it if the losses (M,) float64 are not all finite, or their sum is not below LARGEST."""
        if losses.size:
            run(_close_if_not_finite, 1, THREADS, losses, losses.size, LARGEST, self.state)

    @contextmanager
    def before(self) -> Iterator[None]:
        """Within this block, optimisers launch updates that ask the gate."""
        token = _of_updates.set(self.state)
        try:
            yield
        finally:
            _of_updates.reset(token)


_of_updates: ContextVar[Any] = ContextVar("_of_updates", default=None)


@cache
def _always_open() -> Any:
    return Gate().state


def of_updates() -> Any:
    """The state of the gate that updates ask; outside of a step one that is always open."""
    state = _of_updates.get()
    return _always_open() if state is None else state
