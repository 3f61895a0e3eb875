"""One contender's process: `python -m nbnet.bench.worker MODULE THREADS [OPTION...]`, driven over stdin and stdout.

A request is a pickled tuple (method name, arguments); an answer is ("ok", result) or ("error", one line). Whatever libraries print
goes to stderr. Between requests the process blocks on the pipe and uses no processor.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nbnet.bench import networks, workloads
from nbnet.bench.networks import NETWORKS
from nbnet.bench.workloads import Workload

SAMPLE = 65_536  # elements of a result that are compared one by one, together with the sum of all squares
FIRST_STEPS = 3  # training steps whose losses are compared


class Worker:
    """The methods that a request can call."""

    def __init__(self, module: str, threads: int, *options: Any) -> None:
        self.contender = importlib.import_module(module).Contender(threads, *options)
        self.run: Any = None

    def build(self, workload: Workload) -> dict[str, Any]:
        """Prepare a workload, run it, and return results for the driver to compare: for a training step the first losses ("random" with
        dropout, "exact" without), for a kernel a digest of each result."""
        self.drop()
        if workload.is_step:
            return self._build_step(workload)
        self.run = self.contender.kernel(workload, workloads.inputs(workload))
        results = [np.array(self.contender.numpy(array)) for array in self.run()]
        return {name: digest(array) for name, array in zip(results_of(workload), results, strict=True)}

    def _build_step(self, workload: Workload) -> dict[str, Any]:
        network, rows = NETWORKS[workload.op], workload.shape[0]
        make = getattr(self.contender, "tuned_step", self.contender.step)
        exact = networks.without_dropout(network)
        found = {}
        if exact != network:
            run = getattr(self.contender, "exact_step", make)(exact, rows)
            found["exact"] = [float(run()) for _ in range(FIRST_STEPS)]
        self.run = make(network, rows)
        found["random" if exact != network else "exact"] = [float(self.run()) for _ in range(FIRST_STEPS)]
        return found

    def drop(self) -> None:
        """Forget the workload and its arrays."""
        self.run = None
        gc.collect()

    def time(self, calls: int, warm: bool) -> list[float]:
        """Seconds of each call. warm: first make an untimed call, since after a pause caches are cold and threads sleep."""
        run = self.run
        if warm:
            run()
        found = []
        for _ in range(calls):
            began = time.perf_counter()
            run()
            found.append(time.perf_counter() - began)
        return found

    def first_step(self, op: str, rows: int) -> float:
        """Run the first training step of a network. Returns the time of day at its end."""
        self.run = self.contender.step(NETWORKS[op], rows)
        self.run()
        return time.time()

    def rates(self, calls: int, threads: int) -> dict[str, list[float]]:
        """The rates that the contender `floors` measures."""
        return self.contender.rates(calls, threads)

    def peak_memory(self) -> int:
        """Peak physical memory of this process in bytes; 0 where the system does not report it."""
        status = Path("/proc/self/status")
        if status.exists():  # of this program alone: ru_maxrss starts at the parent's value
            (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        try:
            import resource
        except ImportError:  # Windows
            return 0
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def results_of(workload: Workload) -> tuple[str, ...]:
    return workloads.RESULTS.get(workload.part) or workloads.RESULTS[workload.op]


def digest(array: np.ndarray) -> dict[str, Any]:
    """Enough of an array to compare it: shape, all elements or a random sample, largest magnitude, sum of squares."""
    flat = np.ravel(array)
    where = np.random.default_rng(0).integers(0, flat.size, SAMPLE) if flat.size > SAMPLE else slice(None)
    return {
        "shape": array.shape,
        "sample": flat[where],
        "largest": float(max(flat.max(), -flat.min())),
        "squares": float(np.einsum("i,i->", flat, flat, dtype=np.float64)),
    }


def settle() -> None:
    """Wait until this process uses no processor: idle threads of many pools spin before they sleep (NumPy's BLAS threads for 80 ms) and
    would slow down the next contender."""
    for _ in range(100):
        used = time.process_time()
        time.sleep(0.012)  # longer than a tick of the system's clock: what a running thread has used is counted at ticks
        if time.process_time() - used < 0.001:
            return


def serve(worker: Worker, requests: BinaryIO, answers: BinaryIO) -> None:
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer = ("ok", getattr(worker, method)(*arguments))
            settle()
        except Exception as error:  # the driver reports it, and the others continue
            answer = ("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        pickle.dump(answer, answers)
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    module, threads, *options = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):  # limits frameworks that ignore their thread settings
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    try:
        worker = Worker(module, int(threads), *options)
    except Exception as error:
        pickle.dump(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"), answers)
        answers.flush()
        return
    pickle.dump(("ok", None), answers)
    answers.flush()
    serve(worker, sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
