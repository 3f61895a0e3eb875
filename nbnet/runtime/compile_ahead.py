"""A cold start on more than one processor: kernels that training needs later are compiled by other processes meanwhile.

Numba compiles one kernel at a time in a process, and a network's first step needs some 30: half a minute and more. Which ones, a pass
over a blank batch tells in some milliseconds, on a backend that runs no kernel. The first ones are compiled where they are called, as
ever; workers compile the others, in the order in which they will be called, and leave them in Numba's cache on disk. What a worker has
in hand, nobody else compiles: `cache.compiling_elsewhere` waits for it. A worker that fails leaves its work to the one who waits.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

from numba import config

from nbnet.kernels import load
from nbnet.kernels.cpu.cache import compiling_elsewhere, is_compiled
from nbnet.kernels.cpu.numba_private import types_of
from nbnet.layers import Sequential
from nbnet.layers.fusion import copied
from nbnet.runtime.backend import Backend

WORKERS = 3  # processes at most: the convolution that is compiled first takes as long as all that these have to do
FEW = 4  # kernels that are not worth a worker, which starts in a second and types the bodies again that kernels share
PATIENCE = 240.0  # seconds without a kernel after which a worker is given up: the largest takes 15
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container
COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from nbnet.runtime.compile_ahead import main; main()"  # as this process finds modules

Call = tuple[str, tuple[Any, ...]]  # an operation's kernel, and the Numba types of its arguments
compiled: list[Call] = []  # by workers of this process


class _Blank(Backend):
    """A backend that notes the calls of kernels and makes none."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: dict[Call, None] = {}  # in order

    def kernel(self, op: str) -> Any:
        return partial(self._note, op)

    def _note(self, op: str, *args: Any) -> None:
        self.calls[op, types_of(load(op, self.name), args)] = None

    def run(self, function: Any, *args: Any) -> None:
        pass


def calls(model: Sequential, rows: int) -> list[Call]:
    """The kernels that forward and backward of a replayable model call for a batch, in order (nbnet.runtime.replay says what that is)."""
    blank = _Blank(model.backend.name)
    twin = copied(model, blank, {})
    y, tape = twin.forward(blank.empty((rows, *(model.input_shape or ())), model.dtype), train=True)
    twin.backward(y, list(tape), need_dx=False)
    return list(blank.calls)


def compile_ahead(model: Sequential, rows: int) -> None:
    """Have workers compile what no cache holds of the last kernels that a replayable model calls for a batch of so many rows."""
    workers = min(_processors() - 1, WORKERS)
    if workers < 1 or model.backend.name not in ("serial", "parallel"):  # others compile nothing, or keep nothing
        return
    if not Path(os.fsdecode(get_executable() or "")).name.startswith("python"):  # a program that Python is embedded in
        return
    name = model.backend.name
    of_kernel: dict[str, list[Call]] = {}  # all signatures of a kernel are one process's work: of two, one might lose the other's entry
    for op, types in calls(model, rows):
        kernel = load(op, name)
        if kernel not in compiling_elsewhere and not is_compiled(kernel, types):
            of_kernel.setdefault(op, []).append((op, types))
    if len(of_kernel) < FEW:
        return
    theirs = list(of_kernel)[len(of_kernel) // (workers + 1) :]
    for i in range(workers):
        _Worker(name, [(op, of_kernel[op]) for op in theirs[i::workers]])


def _processors() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
        return count if quota == "max" else min(count, int(quota) // int(period))
    except (OSError, ValueError):
        return count


class _Worker:
    """A process that compiles kernels. It writes a line when it is done with one, and ends when nobody reads them any more.

    Args:
        work: kernels, each with its calls.
    """

    def __init__(self, backend: str, work: list[tuple[str, list[Call]]]) -> None:
        self._owner, self._done, self._calls = os.getpid(), 0, [call for _, calls in work for call in calls]
        cache = {"NUMBA_CACHE_DIR": config.CACHE_DIR} if config.CACHE_DIR else {}  # type: ignore[attr-defined]
        command = [get_executable(), "-c", COMMAND, *sys.path]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | cache
            )
        except OSError:  # no process can start here
            return
        requests: Any = self._process.stdin
        with contextlib.suppress(OSError):  # it has ended already: who waits for it will see
            pickle.dump((backend, self._calls), requests)
            requests.close()
        finished = 0
        for op, calls in work:
            finished += len(calls)
            compiling_elsewhere[load(op, backend)] = partial(self._wait, finished)

    def _wait(self, count: int) -> None:
        """Wait until so many kernels are compiled, or the process has ended."""
        if os.getpid() != self._owner:  # a fork, whose parent waits
            return
        answers: Any = self._process.stdout
        while self._done < count and not answers.closed:
            patience = threading.Timer(PATIENCE, self._process.kill)
            patience.start()
            line = answers.readline()
            patience.cancel()
            if line:
                compiled.append(self._calls[self._done])
                self._done += 1
            if not line or self._done == len(self._calls):
                answers.close()
                self._process.wait()


def main() -> None:
    """What a worker does."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    backend, work = pickle.load(sys.stdin.buffer)
    for op, types in work:
        load(op, backend).compile(types)  # type: ignore[attr-defined]
        print(file=answers, flush=True)
