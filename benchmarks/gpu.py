"""Check every CUDA kernel on the GPU, and time it, a device copy and PyTorch; writes a JSON file and a chart.

    python benchmarks/gpu.py --out results            # on a GPU; PyTorch is timed too where it is installed
    python benchmarks/gpu.py --static                 # registers, occupancy and bytes of each kernel, from the compiler; needs no GPU
    NUMBA_ENABLE_CUDASIM=1 python benchmarks/gpu.py   # a dry run at toy sizes in the simulator: its times mean nothing

Each case is first compared with NumPy in float64 at a smaller batch, then timed: calls between two CUDA events, over several input
sets, so that the level-2 cache does not hold the input; the median is reported. PyTorch runs the same call on the same data, eager and
compiled, with TF32 off and, for convolutions, on.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import TOLERANCE, Case, cases

import nbnet
from nbnet import plots, storage
from nbnet.kernels.gpu import device
from nbnet.kernels.gpu.compile import SIMULATED
from nbnet.runtime.backend import check_cuda, get_backend

CACHE = 200e6  # bytes, at least, in the input sets of a case: four times an H200's level-2 cache
SETS = 8  # at most
SECONDS = 1.5  # timing budget per contender
SAMPLES = 50  # at most


def check(case: Case) -> None:
    """Compare nbnet's results with the case's definition in float64; raises AssertionError."""
    be = get_backend("cuda")
    arrays = case.make(np.random.default_rng(1))
    expected = case.reference(*[array.astype(np.float64) for array in arrays])
    results = case.run(*[be.place(array) for array in arrays])
    for i, (actual, right) in enumerate(zip(results, expected, strict=True)):
        limit = TOLERANCE[case.kind] * np.abs(right).max()
        np.testing.assert_allclose(np.asarray(actual), right, rtol=0, atol=limit, err_msg=f"{case.name}, result {i}")


def times(calls: list[Any], event: Any, wait: Any, simulated: bool) -> list[float]:
    """Milliseconds per call, one number per sample. calls: the same call on each input set."""
    for call in calls:
        call()
    wait()
    began = time.perf_counter()
    for call in calls:
        call()
    wait()
    once = max((time.perf_counter() - began) / len(calls), 1e-6)
    if simulated:
        return [1e3 * once]
    repeat = max(1, round(2e-3 / once))  # calls per sample: 2 ms
    samples = []
    for sample in range(int(min(SAMPLES, max(5, SECONDS / (repeat * once))))):
        start, stop = event(), event()
        start.record()
        for i in range(repeat):
            calls[(sample * repeat + i) % len(calls)]()
        stop.record()
        wait()
        samples.append(start.elapsed_time(stop) / repeat)
    return samples


class Event:
    """A CUDA event on nbnet's stream, with the methods of PyTorch's."""

    def __init__(self) -> None:
        self.event = device.cuda.event()

    def record(self) -> None:
        self.event.record(device.stream())

    def elapsed_time(self, other: Event) -> float:
        return self.event.elapsed_time(other.event)


def copy_bandwidth(toy: bool) -> float:
    """GB/s of a device copy, bytes read and bytes written."""
    n = 1000 if toy else 1 << 28
    pairs = [(get_backend("cuda").empty((n,)), get_backend("cuda").empty((n,))) for _ in range(2)]
    for source, _ in pairs:
        source[:] = 1.0

    def copy(source, target):
        return lambda: target.__setitem__(slice(None), source)

    return 8e-6 * n / statistics.median(times([copy(*pair) for pair in pairs], Event, device.synchronize, toy))


def contenders(case: Case, toy: bool) -> dict[str, list[float]]:
    """Times of nbnet, and of PyTorch's variants where it is installed and finds the GPU."""
    rng = np.random.default_rng(2)
    first = case.make(rng)
    count = 1 if toy else max(2, min(SETS, -(-int(CACHE) // sum(a.nbytes for a in first))))
    sets = [first, *(case.make(rng) for _ in range(count - 1))]
    placed = [[get_backend("cuda").place(array) for array in arrays] for arrays in sets]
    results = {"nbnet": times([lambda a=a: case.run(*a) for a in placed], Event, device.synchronize, toy)}
    del placed
    get_backend("cuda").pool.clear()
    torch = None if toy else torch_here()
    if torch is None:
        return results
    tensors = [[torch.as_tensor(array, device="cuda") for array in arrays] for arrays in sets]
    event = lambda: torch.cuda.Event(enable_timing=True)  # noqa: E731
    for tf32 in (False, True) if case.flops else (False,):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        calls = [case.torch(torch, *arrays) for arrays in tensors]
        results[f"PyTorch eager{', TF32' if tf32 else ''}"] = times(calls, event, torch.cuda.synchronize, False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if not case.flops:
        torch._dynamo.reset()
        calls = [torch.compile(case.torch(torch, *arrays), dynamic=False) for arrays in tensors[:2]]
        results["PyTorch compiled"] = times(calls, event, torch.cuda.synchronize, False)
    return results


def torch_here() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def row(case: Case, results: dict[str, list[float]], copy: float) -> dict[str, Any]:
    """The JSON entry of a case."""
    medians = {name: statistics.median(samples) for name, samples in results.items()}
    ours = medians["nbnet"]
    kept: dict[str, Any] = {"name": case.name, "bytes": case.size, "flops": case.flops, "ms": medians}
    kept["spread"] = {name: [min(samples), max(samples)] for name, samples in results.items()}
    kept["GB/s"] = case.size / ours / 1e6
    kept["of copy"] = kept["GB/s"] / copy
    kept["TFLOP/s"] = case.flops / ours / 1e9
    kept["speed-up"] = {name: median / ours for name, median in medians.items() if name != "nbnet"}
    return kept


def machine(copy: float, toy: bool) -> dict[str, Any]:
    torch = None if toy else torch_here()
    return {
        "device": check_cuda(),
        "simulated": toy,
        "copy GB/s": copy,
        "python": platform.python_version(),
        "versions": {"nbnet": nbnet.__version__, "numpy": np.__version__, "torch": torch and torch.__version__},
        "date": time.strftime("%Y-%m-%d"),
    }


def chart(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Bars: speed-up over each contender, or, without any, the share of the copy's bandwidth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({name for row in rows for name in row["speed-up"]}) or ["device copy"]
    figure, axes = plt.subplots(dpi=110, figsize=(11, 1.5 + 0.35 * len(rows) * max(1, len(names) / 2)))
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        values = [row["speed-up"].get(name, 0) if rows[0]["speed-up"] else row["of copy"] for row in rows]
        axes.barh([y + i * height for y in range(len(rows))], values, height, label=f"against {name}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(rows))], [row["name"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    figure.tight_layout()
    plots.save(figure, path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for gpu.json and gpu.png (default: %(default)s)")
    parser.add_argument("--only", default="", help="run only the cases whose name contains this")
    parser.add_argument("--static", action="store_true", help="print registers, spills, occupancy and bytes of each kernel; needs no GPU")
    options = parser.parse_args()
    if options.static:
        from gpu_static import report

        report(options.only)
        return
    toy = SIMULATED
    print(check_cuda())
    copy = copy_bandwidth(toy)
    print(f"device copy: {copy:,.0f} GB/s")
    rows = []
    for case in cases(toy):
        if options.only in case.name:
            check(case.small or case)
            rows.append(row(case, contenders(case, toy), copy))
            last = rows[-1]
            others = "".join(f", {name} {factor:.2f}" for name, factor in last["speed-up"].items())
            print(
                f"{case.name}: {last['ms']['nbnet']:.3f} ms, {last['of copy']:.0%} of copy, {last['TFLOP/s']:.1f} TFLOP/s{others}",
                flush=True,
            )
    facts = machine(copy, toy)
    options.out.mkdir(parents=True, exist_ok=True)
    storage.write_json(options.out / "gpu.json", facts | {"rows": rows})
    if rows:
        chart(rows, f"nbnet {nbnet.__version__} on {facts['device']}", options.out / "gpu.png")
    print(f"{options.out / 'gpu.json'}, {options.out / 'gpu.png'}")


if __name__ == "__main__":
    main()
