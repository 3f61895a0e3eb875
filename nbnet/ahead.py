"""A cold start on more than one processor: kernels that training needs later are compiled by other processes meanwhile.

Numba compiles one kernel at a time in a process, and a network's first step needs some 30: half a minute and more. Which ones, a pass
over a blank batch tells in some milliseconds, on a backend that runs no kernel. The first ones are compiled where they are called, as
ever; helpers compile the others, in the order in which they will be called, and leave them in Numba's cache on disk. What a helper has
in hand, nobody else compiles: `compile.elsewhere` waits for it. A helper that fails leaves its work to the one who waits.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from nbnet.backend import Backend
from nbnet.kernels import load
from nbnet.kernels.compile import elsewhere, is_kept
from nbnet.layers import Sequential
from nbnet.layers.fusion import copied
from nbnet.memory import Pool, Scratch

HELPERS = 3  # processes at most: the convolution that is compiled first takes as long as all that these have to do
FEW = 4  # kernels that are not worth the second in which a helper starts

Call = tuple[str, tuple[Any, ...]]  # an operation's kernel, and the Numba types of its arguments
given: list[Call] = []  # what helpers of this process were given to compile


class _Blank(Backend):
    """A backend that notes the calls of kernels and makes none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool = Pool()
        self._scratch = Scratch(self.pool)
        self._no_bias = {}
        self.calls: dict[Call, None] = {}  # in order

    def kernel(self, op: str) -> Any:
        return partial(self._note, op)

    def _note(self, op: str, *args: Any) -> None:
        kernel: Any = load(op, self.name)
        self.calls[op, tuple([kernel.typeof_pyval(arg) for arg in args])] = None

    def run(self, function: Any, *args: Any) -> None:
        pass


def calls(model: Sequential, rows: int) -> list[Call]:
    """The kernels that forward and backward of a replayable model call for a batch, in order (nbnet.replay says what that is)."""
    blank = _Blank(model.backend.name)
    twin = copied(model, blank, {})
    y, tape = twin.forward(blank.empty((rows, *(model.input_shape or ())), model.dtype), train=True)
    twin.backward(y, list(tape), need_dx=False)
    return list(blank.calls)


def compile_ahead(model: Sequential, rows: int) -> None:
    """Have helpers compile what no cache holds of the last kernels that a replayable model calls for a batch of so many rows."""
    helpers = min(_processors() - 1, HELPERS)
    if model.backend.name not in ("serial", "parallel"):  # others compile nothing, or keep nothing
        return
    if helpers < 1 or not sys.executable or hasattr(sys, "frozen"):  # in a frozen program, that is the program itself
        return
    name = model.backend.name
    of_kernel: dict[str, list[Call]] = {}  # all signatures of a kernel are one process's work: two would mix up its files
    for op, types in calls(model, rows):
        kernel = load(op, name)
        if kernel not in elsewhere and not is_kept(kernel, types):
            of_kernel.setdefault(op, []).append((op, types))
    if len(of_kernel) < FEW:
        return
    theirs = list(of_kernel)[len(of_kernel) // (helpers + 1) :]
    for i in range(helpers):
        _Helper(name, [(op, of_kernel[op]) for op in theirs[i::helpers]])


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helper:
    """A process that compiles kernels. It writes a line when it is done with one.

    Args:
        work: kernels, each with its calls.
    """

    def __init__(self, backend: str, work: list[tuple[str, list[Call]]]) -> None:
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._owner, self._done, finished = os.getpid(), 0, 0
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nbnet.ahead"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            )
            atexit.register(self._process.kill)
            pickle.dump((backend, [call for _, calls in work for call in calls]), self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.close()  # type: ignore[union-attr]
        except OSError:  # no process can start here, or it ended at once
            return
        for op, calls in work:
            finished += len(calls)
            elsewhere[load(op, backend)] = partial(self._wait, finished)
            given.extend(calls)

    def _wait(self, count: int) -> None:
        """Wait until so many kernels are compiled, or the process has ended."""
        if os.getpid() == self._owner:  # and not a fork of it
            while self._done < count and self._process.stdout.readline():  # type: ignore[union-attr]
                self._done += 1


def main() -> None:
    """What a helper does."""
    backend, work = pickle.load(sys.stdin.buffer)
    for op, types in work:
        load(op, backend).compile(types)  # type: ignore[attr-defined]
        print(flush=True)


if __name__ == "__main__":
    main()
