"""Faster cold starts on more than one processor: worker processes compile the kernels that training will need later.

Numba compiles one kernel at a time in a process, and the first step of a network needs about 30: half a minute and more. Which ones,
a pass over a blank batch on a backend that runs no kernel shows in a few milliseconds. The first kernels are compiled where they are
called, as usual; workers compile the others, in the order of the calls, into Numba's cache on disk. The process that needs a kernel
that a worker compiles waits for it, and compiles it itself if the worker fails.

The environment variable NBNET_COMPILE_WORKERS sets the number of workers; 0 turns them off.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

from numba import config

from nbnet.errors import ArgumentError
from nbnet.kernels import load
from nbnet.kernels.cpu.cache import compiling_elsewhere, is_missing
from nbnet.kernels.cpu.numba_private import types_of
from nbnet.runtime.arrays import each, first
from nbnet.runtime.backend import NumpyBackend
from nbnet.runtime.processors import processors
from nbnet.runtime.recording import copy_on
from nbnet.runtime.stage import Stage

VARIABLE = "NBNET_COMPILE_WORKERS"
WORKERS = 3  # at most by default: the convolution that is compiled first takes as long as everything these have to do
FEW = 4  # kernels that are not worth a worker, which takes a second to start and compiles the shared bodies again
PATIENCE = 240.0  # seconds without a finished kernel after which a worker is killed: the largest kernel takes 15
WINDOWS = sys.platform == "win32"
POLL = 0.5  # seconds between a worker's checks that its parent is alive
COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from nbnet.runtime.compile_ahead import main; main()"  # with this process's sys.path

Call = tuple[str, tuple[Any, ...]]  # an operation's kernel, and the Numba types of its arguments
compiled: list[Call] = []  # by workers of this process


class _Blank(NumpyBackend):
    """A backend that notes the calls of kernels and runs none."""

    def __init__(self, name: str, threads: int) -> None:
        super().__init__()
        self.name, self.threads = name, threads
        self.calls: dict[Call, None] = {}  # in order

    def kernel(self, op: str) -> Any:
        return partial(self._note, op)

    def _note(self, op: str, *args: Any) -> None:
        self.calls[op, types_of(load(op, self.name), args)] = None

    def run(self, function: Any, *args: Any) -> None:
        """Nothing runs."""

    def channelwise(self, function: Any, outputs: Any, *args: Any, clamp: bool = False) -> None:
        """Nothing runs."""


class _Skipped(Stage):
    """A stage that cannot be recorded, on the blank backend: it returns blank arrays."""

    def __init__(self, stage: Stage, backend: Any) -> None:
        self.stage, self.backend = stage, backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)

    def forward(self, x: Any, train: bool = False) -> tuple[Any, Any]:
        return each(lambda shape: self.backend.empty((len(first(x)), *shape), self.stage.dtype), self.stage.output_shape), x

    def backward(self, dy: Any, saved: Any, need_dx: bool = True) -> Any:
        return saved


def calls(model: Any, rows: int) -> list[Call]:
    """The kernels that the replayable layers of a model call for a batch, forward and backward, in order (see nbnet.runtime.replay).

    Args:
        model: a built Sequential. rows: of the batch.
    """
    blank = _Blank(model.backend.name, model.backend.threads)
    twin, _ = copy_on(model, blank, _Skipped)
    x = each(lambda shape: blank.empty((rows, *shape), model.dtype), model.input_shape)
    y, tape = twin.forward(x, train=True)
    twin.backward(y, list(tape), need_dx=False)
    return list(blank.calls)


def compile_ahead(model: Any, rows: int) -> None:
    """Let workers compile the last of the kernels that a model calls for a batch of `rows` rows and that no cache holds."""
    count = workers()
    if count < 1 or model.backend.name not in ("serial", "parallel"):  # the others compile nothing, or keep nothing
        return
    if not Path(os.fsdecode(get_executable() or "")).name.startswith("python"):  # a program that embeds Python
        return
    name = model.backend.name
    of_kernel: dict[str, list[Call]] = {}  # one process compiles all signatures of a kernel: two could lose each other's cache entry
    for op, types in calls(model, rows):
        kernel = load(op, name)
        if kernel not in compiling_elsewhere and is_missing(kernel, types):
            of_kernel.setdefault(op, []).append((op, types))
    if len(of_kernel) < FEW:
        return
    theirs = list(of_kernel)[len(of_kernel) // (count + 1) :]
    for i in range(count):
        _Worker(name, [(op, of_kernel[op]) for op in theirs[i::count]])


def workers() -> int:
    """How many workers compile ahead: NBNET_COMPILE_WORKERS, or by default one fewer than processors, up to 3.

    Raises:
        ArgumentError: the variable is not a whole number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return min(processors() - 1, WORKERS)
    if not text.isdecimal():
        raise ArgumentError(f"{VARIABLE}={text!r}: expected a whole number of processes, 0 for none")
    return int(text)


class _Worker:
    """A process that compiles kernels. It writes a line after each, and exits within a second of its parent.

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
        except OSError:  # processes cannot start here
            return
        requests: Any = self._process.stdin
        with contextlib.suppress(OSError):  # it has ended already, which `_wait` will notice
            pickle.dump((os.getpid(), backend, self._calls), requests)
            requests.flush()  # and it stays open, until this process ends
        finished = 0
        for op, calls in work:
            finished += len(calls)
            compiling_elsewhere[load(op, backend)] = partial(self._wait, finished)

    def _wait(self, count: int) -> None:
        """Wait until `count` kernels are compiled, or the process has ended."""
        if os.getpid() != self._owner:  # a forked process; its parent waits
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
                with contextlib.suppress(OSError):  # it read no request
                    self._process.stdin.close()  # type: ignore[union-attr]
                self._process.wait()


def main() -> None:
    """What a worker runs."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    parent, backend, work = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    for op, types in work:
        load(op, backend).compile(types)  # type: ignore[attr-defined]
        print(file=answers, flush=True)


def _exit_with(parent: int) -> None:
    """Exit when the parent has exited, also within a long compilation: LLVM runs without the GIL."""
    if WINDOWS:  # the parent of a process never changes; but its end of the pipe is closed when it exits (elsewhere a fork keeps it open)
        os.read(0, 1)
    else:
        while os.getppid() == parent:
            time.sleep(POLL)
    os._exit(1)
