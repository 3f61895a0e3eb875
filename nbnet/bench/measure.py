"""Measuring: each workload is checked against the NumPy reference, then all contenders are timed in turns, round after round."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from nbnet.bench.contenders import Contender, ContenderError, Process
from nbnet.bench.worker import digest
from nbnet.bench.workloads import LOSS_TOLERANCE, RANDOM_LOSS, RATE, TOLERANCE, Workload, inputs

TURN = 0.05  # seconds per turn, roughly
SLOW = 0.1  # seconds per call from which turns have no untimed first call
NUMPY = 0.1  # seconds per call up to which the NumPy reference is timed
FLOOR_ROUNDS = 3


@dataclass(frozen=True)
class Effort:
    """seconds: for all turns of a workload. most, fewest: turns per contender."""

    seconds: float
    most: int
    fewest: int


FULL, FULL_SWEEP, QUICK = Effort(2.0, 8, 3), Effort(0.5, 4, 2), Effort(0.5, 8, 2)


def measure(workload: Workload, processes: dict[str, Process], timed: set[str], effort: Effort) -> dict[str, Any]:
    """Check and time one workload.

    Args:
        processes: by contender; "floors" and "numpy", the reference, are among them.
        timed: names of the contenders to time.
    Returns:
        contenders: {name: {"seconds": [every call]}}; failed: {name: why it was not timed}; floors: {threads: {measure: [rates]}}.
    """
    taking_part = {name: p for name, p in processes.items() if workload.op in p.contender.ops}
    if workload.sweep:
        taking_part = {name: p for name, p in taking_part.items() if p.contender.sweeps}
    built, failed = _ask_all(taking_part, "build", workload)
    if "numpy" in failed:
        raise ContenderError(f"{workload.name}: the reference failed: {failed['numpy']}")
    for name, found in built.items():
        problem = compare(workload, found, built["numpy"])
        if problem is not None:
            failed[name] = f"wrong: {problem}"
    ready = {name: process for name, process in taking_part.items() if name in timed and name not in failed}
    try:
        samples, rates = _take_turns(ready, processes["floors"], effort, failed)
    finally:
        _ask_all({name: taking_part[name] for name in built}, "drop")
    return {"contenders": samples, "failed": failed, "floors": rates}


def _ask_all(processes: dict[str, Process], method: str, *arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask all at the same time, since a compiler keeps only one core busy. Returns the answers, and the errors of those that failed."""
    sent = {name: process.attempt(process.send, method, *arguments)[1] for name, process in processes.items()}
    failed = {name: error for name, error in sent.items() if error is not None}
    answers = {}
    for name, process in processes.items():
        if name not in failed:
            answer, error = process.attempt(process.receive)
            if error is None:
                answers[name] = answer
            else:
                failed[name] = error
    return answers, failed


def _take_turns(
    processes: dict[str, Process], floors: Process, effort: Effort, failed: dict[str, str]
) -> tuple[dict[str, Any], dict[int, Any]]:
    """Samples of every contender, and rates of the machine. A contender that fails is added to `failed`; the others continue."""
    calls, rounds, warm = {}, {}, {}
    for name, process in processes.items():
        first, error = process.attempt(process.call, "time", 1, False)  # not the first call: building has run it once
        if error is not None:
            failed[name] = error
            continue
        seconds = float(np.median(first))
        if name == "numpy" and seconds > NUMPY:
            continue
        calls[name], warm[name] = max(1, min(200, round(TURN / seconds))), seconds < SLOW
        share = effort.seconds / len(processes)
        rounds[name] = int(np.clip(share / (seconds * (calls[name] + warm[name])), effort.fewest, effort.most))
    total = max(rounds.values(), default=0)
    samples: dict[str, dict[str, Any]] = {name: {"seconds": [], "turns": rounds[name]} for name in rounds}
    rates: dict[int, dict[str, list[float]]] = {count: {} for count in sorted({1, floors.threads})}
    for turn in range(total):
        for name in [name for name in samples if _is_due(turn, rounds[name], total)]:
            seconds, error = processes[name].attempt(processes[name].call, "time", calls[name], warm[name])
            if error is None:
                samples[name]["seconds"] += seconds
            else:
                failed[name] = error
                del samples[name]
        if _is_due(turn, min(FLOOR_ROUNDS, total), total):
            for count, known in rates.items():
                for key, values in floors.call("rates", 1, count).items():
                    known.setdefault(key, []).extend(values)
    return samples, rates


def _is_due(turn: int, turns: int, rounds: int) -> bool:
    """Whether a contender with `turns` turns has one in this round: they are spread evenly over the rounds."""
    return (turn + 1) * turns // rounds > turn * turns // rounds


# ------------------------------------------------------------------------------------------------------- checking


def compare(workload: Workload, found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """What is wrong with a contender's results, or None. Both come from Worker.build."""
    if workload.is_step:
        for key, limit in (("exact", LOSS_TOLERANCE[workload.dtype]), ("random", RANDOM_LOSS)):
            count = 1 if key == "random" else None
            a, b = np.array(found.get(key, ())[:count]), np.array(expected.get(key, ())[:count])
            if a.shape != b.shape or not (np.abs(a - b) <= limit * np.abs(b)).all() or not np.isfinite(found.get(key, ())).all():
                return f"the losses of the first steps are {_listed(a)}, expected {_listed(b)}"
        return None
    if workload.op == "dropout":
        return _check_dropout(workload, found)
    limit = TOLERANCE[workload.dtype]
    for name, right in expected.items():
        if found[name]["shape"] != right["shape"]:
            return f"{name} has shape {found[name]['shape']}, expected {right['shape']}"
        error = np.abs(found[name]["sample"].astype(np.float64) - right["sample"]).max() / max(right["largest"], 1e-30)
        squares = abs(found[name]["squares"] / max(right["squares"], 1e-30) - 1)
        if not (error <= limit and squares <= limit):
            return f"{name} differs from the reference by {error:.1e} of its largest number, its sum of squares by {squares:.1e}"
    return None


def _check_dropout(workload: Workload, found: dict[str, Any]) -> str | None:
    """Masks differ between contenders. Check that y and dx are 0 in the same places, else input / (1 - rate), and the share of zeros."""
    rate, given = RATE, _input_digests(workload)
    zeros = []
    for name, of in (("y", "x"), ("dx", "dy")):
        result, source = found[name]["sample"], given[of]["sample"] / np.float32(1 - rate)
        zeros.append(result == 0)
        if found[name]["shape"] != given[of]["shape"] or not np.allclose(result[~zeros[-1]], source[~zeros[-1]], rtol=1e-6):
            return f"{name} is neither 0 nor {of} / {1 - rate}"
    if not np.array_equal(*zeros):
        return "the gradient is dropped in other places than the output"
    share, deviation = zeros[0].mean(), (rate * (1 - rate) / zeros[0].size) ** 0.5
    return None if abs(share - rate) < 6 * deviation else f"a share of {share:.4f} is dropped, expected {rate}"


@lru_cache(maxsize=1)  # making them takes as long as a measurement, and every contender is checked
def _input_digests(workload: Workload) -> dict[str, dict[str, Any]]:
    return {name: digest(array) for name, array in inputs(workload).items()}


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values) or "none"


# ---------------------------------------------------------------------------------------------------------- start


def start(
    contender: Contender, threads: int, op: str, rows: int, environment: dict[str, str]
) -> tuple[dict[str, float] | None, str | None]:
    """Start a process and run four training steps in it.

    Returns:
        seconds until the first step is done and the peak memory of all four in bytes; or None and the reason.
    """
    began = time.time()
    process = Process(contender, threads, environment)
    try:
        process.wait_until_ready()
        seconds = process.call("first_step", op, rows) - began
        process.call("time", 3, False)
        return {"seconds": seconds, "peak_bytes": process.call("peak_memory")}, None
    except ContenderError as error:
        return None, str(error)
    finally:
        process.close()
