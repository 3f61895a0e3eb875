"""What Numba's threading layers cannot do: made safe where that is cheap, and otherwise said in one line.

- GNU OpenMP, the usual layer on Linux, has no threads in a forked child, where Numba ends the process. Here that is an error.
- workqueue, the layer of last resort, aborts the process when two threads call parallel kernels at once. Here they take turns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.np.ufunc import parallel as pool

from nbnet.errors import BackendError
from nbnet.kernels import load

_lost_threads = False
_turn = threading.Lock()


@cache
def parallel_kernel(op: str) -> Callable[..., Any]:
    """The parallel kernel of an operation, safe to call from any thread.

    Raises:
        BackendError: this process was forked from one whose threads it does not have.
    """
    if _lost_threads:
        raise BackendError(
            "this process was forked after its parent ran parallel kernels, and a fork has no OpenMP threads: "
            "start it with multiprocessing.get_context('spawn'), or use backend='serial'"
        )
    return _in_turns(op) if _layer() == "workqueue" else load(op, "parallel")


def _layer() -> str:
    """The threading layer, which Numba chooses when its threads start."""
    pool._launch_threads()
    return numba.threading_layer()


def _in_turns(op: str) -> Callable[..., Any]:
    kernel = load(op, "parallel")

    def call(*args: Any) -> None:
        with _turn:
            kernel(*args)

    return call


def _after_fork() -> None:
    global _lost_threads
    if pool._is_initialized and numba.threading_layer() == "omp":
        _lost_threads = True
        parallel_kernel.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
