"""From samples to results: medians, spread, rates, ratios, shares of the floor; the JSON report and its summary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nbnet.bench.workloads import Workload

FORMAT = 1  # of the JSON; raised with every incompatible change
COPIES = ("copy", "copy_streaming")
NBNET = "parallel"  # the backend that ratios refer to


def row(workload: Workload, threads: int, measured: dict[str, Any]) -> dict[str, Any]:
    """One workload's results.

    Args:
        measured: the result of measure.measure.
    Returns:
        a row of the JSON; times in seconds, rates in GFLOP/s and GB/s.
    """
    floors = {count: floor_rates(rates, workload.dtype) for count, rates in measured["floors"].items()}
    contenders = {}
    for name, sample in measured["contenders"].items():
        seconds = np.array(sample["seconds"])
        low, median, high = (float(value) for value in np.percentile(seconds, [10, 50, 90]))
        floor = floors.get(1 if name == "serial" else threads)
        contenders[name] = {
            "median": median,
            "p10": low,
            "p90": high,
            "calls": len(seconds),
            "turns": sample["turns"],
            "gflops": workload.flops / median / 1e9,
            "gbs": workload.bytes / median / 1e9,
            "of_floor": workload.floor(floor["flops"], floor["bytes"]) / median if floor else None,
        }
    ours = contenders.get(NBNET, contenders.get("serial"))
    for each in contenders.values():
        each["ratio"] = each["median"] / ours["median"] if ours else None
    return {
        "workload": workload.name,
        "op": workload.op,
        "part": workload.part,
        "size": workload.size,
        "shape": list(workload.shape),
        "outputs": workload.outputs,
        "dtype": workload.dtype,
        "threads": threads,
        "sweep": workload.sweep,
        "gflop": workload.flops / 1e9,
        "gigabytes": workload.bytes / 1e9,
        "contenders": contenders,
        "failed": measured["failed"],
    }


def floor_rates(rates: dict[str, list[float]], dtype: str) -> dict[str, float] | None:
    """Operations and bytes per second of the machine: medians of the dtype's FMA loop and of the faster copy."""
    if not rates:
        return None
    return {"flops": float(np.median(rates[f"fma_{dtype}"])), "bytes": max(float(np.median(rates[name])) for name in COPIES)}


def floors(measured: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The machine's rates over the whole run: {threads: {measure: {"median", "p10", "p90", "samples"}}} in GB/s and GFLOP/s."""
    gathered: dict[int, dict[str, list[float]]] = {}
    for each in measured:
        for threads, rates in each["floors"].items():
            for name, values in rates.items():
                gathered.setdefault(threads, {}).setdefault(name, []).extend(values)
    return {
        str(threads): {
            name: dict(zip(("p10", "median", "p90"), (np.percentile(values, [10, 50, 90]) / 1e9).tolist())) | {"samples": len(values)}
            for name, values in rates.items()
        }
        for threads, rates in sorted(gathered.items())
    }


def start_row(samples: list[dict[str, float]]) -> dict[str, Any]:
    """The median of several starts of one contender."""
    seconds, peak = [s["seconds"] for s in samples], [s["peak_bytes"] for s in samples]
    return {"seconds": float(np.median(seconds)), "peak_bytes": float(np.median(peak)), "each": seconds}


# -------------------------------------------------------------------------------------------------------- summary


def fastest_peer(contenders: dict[str, Any], peers: Iterable[str]) -> str | None:
    """The peer with the smallest median."""
    there = [name for name in peers if name in contenders]
    return min(there, key=lambda name: contenders[name]["median"]) if there else None


def geometric_mean(values: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))


def summary(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The run in a few lines: each training step, all convolutions together, each other kernel, start and memory.

    Returns:
        lines {"what", "unit", "nbnet", "best_peer", "best", "ratios": {peer: its figure / nbnet's}, "of_floor"}; None
        where nothing was measured. A line over several workloads has geometric means.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in report["results"]:
        if not each["sweep"] and each["threads"] == report["threads"] and NBNET in each["contenders"]:
            groups.setdefault("conv2d" if each["op"] == "conv2d" else each["workload"], []).append(each)
    found = []
    for name, rows in groups.items():
        values = {peer: _mean(rows, peer, "median") for peer in [NBNET, *report["peers"]]}
        title = name if len(rows) == 1 else f"{name}, geometric mean of {len(rows)}"
        found.append(_line(title, "ms", values, NBNET, 1e3) | {"of_floor": _mean(rows, NBNET, "of_floor")})
    starts = report["start"]
    seconds = {name: each["seconds"] for name, each in starts.items()}
    if "nbnet" in starts:
        found.append(_line("start to the end of the first step", "s", seconds, "nbnet"))
    if "nbnet cold" in starts:
        found.append(_line("the same with nothing compiled", "s", seconds | _cold(seconds), "nbnet cold"))
    memory = {name: each["peak_bytes"] for name, each in starts.items() if each["peak_bytes"]}
    if "nbnet" in memory:
        found.append(_line("peak memory", "MB", memory, "nbnet", 1e-6))
    return found


def _cold(seconds: dict[str, float]) -> dict[str, float]:
    """The figures with cold caches, by peer name."""
    return {name.removesuffix(" cold"): value for name, value in seconds.items() if name.endswith(" cold")}


def _mean(rows: list[dict[str, Any]], name: str, key: str) -> float | None:
    """The geometric mean over the rows; None where a row has no value."""
    values = [each["contenders"].get(name, {}).get(key) for each in rows]
    return geometric_mean(values) if all(values) else None


def _line(what: str, unit: str, values: dict[str, float | None], ours: str, factor: float = 1.0) -> dict[str, Any]:
    peers = {name: value for name, value in values.items() if value is not None and not name.startswith("nbnet") and name != NBNET}
    peers = {name: value for name, value in peers.items() if not name.endswith(" cold")}
    own = values[ours] or 0.0
    best = min(peers, key=lambda name: peers[name], default=None)
    return {
        "what": what,
        "unit": unit,
        "nbnet": own * factor,
        "best_peer": best,
        "best": peers[best] * factor if best else None,
        "ratios": {name: value / own for name, value in peers.items()},
        "of_floor": None,
    }
