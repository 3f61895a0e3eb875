"""A benchmark run: which contenders measure what, in which order, and the report."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbnet.bench import contenders, measure, results
from nbnet.bench.contenders import Contender, ContenderError, Process
from nbnet.bench.workloads import Workload

STARTS = 3  # of nbnet; slower starts are repeated less often
CACHES = {"nbnet": "NUMBA_CACHE_DIR", "torch-compile": "TORCHINDUCTOR_CACHE_DIR"}
SCALED = ("five-conv", "conv2d", "batchnorm", "dropout")  # one workload of each is measured with every thread count


@dataclass(frozen=True)
class Plan:
    """threads: counts; the comparison uses the last one, the chart of cost against threads uses all.
    start: whether starts and peak memory are measured."""

    backends: list[Contender]
    peers: list[Contender]
    workloads: list[Workload]
    threads: list[int]
    start: bool
    quick: bool

    @property
    def scaled(self) -> list[Workload]:
        """Workloads for other thread counts: one step and one kernel of each kind."""
        found: dict[str, Workload] = {}
        for each in self.workloads:
            narrow = each.op == "conv2d" and each.shape[3] != each.outputs  # a first layer is not typical
            if each.op in SCALED and each.part in ("", "forward") and not each.sweep and not narrow:
                found[each.op] = each if each.is_step else found.get(each.op, each)  # of training steps the last, which is the shortest
        return list(found.values())

    def steps(self) -> int:
        """How many times `advance` is called."""
        starts = len(self._starts()) if self.start else 0
        return len(self.workloads) + len(self.scaled) * (len(self.threads) - 1) + starts

    def run(self, advance: Callable[[str], None]) -> dict[str, Any]:
        """Measure everything. Returns the report without the facts about the machine.

        Args:
            advance: called with the name of what comes next.
        """
        began = time.perf_counter()
        absent: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="nbnet-bench-") as folder:
            starts = self._measure_starts(advance, absent, Path(folder)) if self.start else {}
            rows, measured = self._measure_all(advance, absent, Path(folder))
        found: dict[str, Any] = {
            "format": results.FORMAT,
            "threads": self.threads[-1],
            "backends": [each.name for each in self.backends],
            "peers": [each.name for each in self.peers],
            "titles": {each.name: each.title for each in [*self.backends, *self.peers]},
            "quick": self.quick,
            "floors": results.floors(measured),
            "results": rows,
            "start": starts,
            "absent": absent,
            "seconds": time.perf_counter() - began,
        }
        return found | {"summary": results.summary(found)}

    def _measure_all(self, advance: Callable[[str], None], absent: dict[str, str], folder: Path) -> tuple[list[Any], list[Any]]:
        """The rows of the report, and the measurements behind them."""
        timed = {each.name for each in [*self.backends, *self.peers]}
        caches = {} if self.quick else {"torch-compile": _cache("torch-compile", folder)}
        if self.start and not self.quick:  # the starts have filled both
            caches[results.NBNET] = _cache("nbnet", folder)
        rows, measured = [], []
        for threads in reversed(self.threads):
            main = threads == self.threads[-1]
            with _processes(self._crowd(main), threads, absent, caches) as crowd:
                for workload in self.workloads if main else self.scaled:
                    advance(workload.name + ("" if main else f", threads: {threads}"))
                    effort = measure.QUICK if self.quick else measure.FULL_SWEEP if workload.sweep or not main else measure.FULL
                    each = measure.measure(workload, crowd, timed, effort)
                    measured.append(each)
                    rows.append(results.row(workload, threads, each))
        return rows, measured

    def _crowd(self, main: bool) -> list[Contender]:
        """The contenders. The NumPy reference is always among them, since the others are checked against it."""
        ours = self.backends if main else [each for each in self.backends if each.name in ("serial", "parallel")]
        reference = [] if any(each.name == "numpy" for each in ours) else [contenders.backend("numpy")]
        return [contenders.floors(), *reference, *ours, *(peer for peer in self.peers if main or peer.sweeps)]

    # --------------------------------------------------------------------------------------------------------- start

    def _starts(self) -> list[tuple[str, Contender, int]]:
        """Name in the report, contender, number of starts. A cold start comes first and fills the cache of the warm ones."""
        ours = [each for each in self.backends if each.name == results.NBNET]
        found = [("nbnet cold", ours[0], 1)] if ours and not self.quick else []
        found += [("nbnet", ours[0], STARTS)] if ours else []
        for peer in self.peers:
            if peer.name not in CACHES:
                found.append((peer.name, peer, 1 if self.quick else 2))
            elif not self.quick:
                found += [(f"{peer.name} cold", peer, 1), (peer.name, peer, 1)]
        return found

    def _measure_starts(self, advance: Callable[[str], None], absent: dict[str, str], folder: Path) -> dict[str, Any]:
        threads, rows = self.threads[-1], 32 if self.quick else 128
        found: dict[str, Any] = {}
        for name, contender, count in self._starts():
            advance(f"start of {name}")
            key = name.removesuffix(" cold")
            # A quick run has no cold start. It uses the user's own cache, and discards one first start in case that cache is cold.
            cache = _cache(key, folder) if key in CACHES and not self.quick else {}
            spare = int(self.quick and key in CACHES)
            samples: list[dict[str, float]] = []
            for _ in range(spare + count):
                sample, error = measure.start(contender, threads, "five-conv", rows, cache)
                if sample is None:
                    absent[name] = error or ""
                    break
                samples.append(sample)
            else:
                found[name] = results.start_row(samples[spare:])
        return found


def _cache(name: str, folder: Path) -> dict[str, str]:
    """The environment variable that moves a contender's compilation cache into the run's own folder."""
    return {CACHES[name]: str(folder / name)}


@contextlib.contextmanager
def _processes(
    members: list[Contender], threads: int, absent: dict[str, str], environments: dict[str, dict[str, str]]
) -> Iterator[dict[str, Process]]:
    """The contenders' processes by name. A peer that does not start is left out; `absent` gets the reason."""
    processes: dict[str, Process] = {}
    try:
        for contender in members:
            processes[contender.name] = Process(contender, threads, environments.get(contender.name))
        for name, process in list(processes.items()):
            _, error = process.attempt(process.wait_until_ready)
            if error is not None:
                if process.contender.is_ours:
                    raise ContenderError(f"{name}: {error}")
                absent[name] = error
                processes.pop(name).close()
        yield processes
    finally:
        for process in processes.values():
            process.close()
