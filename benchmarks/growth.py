"""How cost grows with batch, channels, image size and threads: python benchmarks/growth.py [--out benchmarks/results/growth]

Each kernel of nbnet, on one thread and on all, along three axes through one point (64 images, 16 x 16 pixels, 64 channels): batch 1 to
1,024, channels 4 to 512, images of 4 x 4 to 128 x 128 pixels. Times are medians, per million numbers of x. The
floor is the longer of copying the bytes at the rate of a copy of x (a loop of prange, which starts threads), and the multiply-adds at the rate of an FMA loop. Those of
minimal filtering (3 x 3 convolutions with 16 or more channels) are a quarter of the definition's.

Writes growth.json and growth.png.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numba
import numpy as np

from nbnet.bench import ours
from nbnet.bench.profile import copy_rate, fma_rate
from nbnet.bench.workloads import Workload, inputs
from nbnet.demos import drawing

KERNELS = [
    ("conv2d", "forward"),
    ("conv2d", "backward_data"),
    ("conv2d", "backward_weights"),
    ("batchnorm", ""),
    ("dropout", ""),
    ("max-pool", ""),
]
AXES = {
    "batch": [(2**i, 16, 16, 64) for i in range(11)],
    "channels": [(64, 16, 16, 2**i) for i in range(2, 10)],
    "pixels of a side": [(16, 2**i, 2**i, 64) for i in range(2, 8)],
}
PLACE = {"batch": 0, "channels": 3, "pixels of a side": 1}
FILTERED = 16  # channels from which a 3 x 3 convolution uses minimal filtering
SECONDS = 0.15  # of calls for each median, and at least five


def measure(contender, op, part, shape, threads):
    """Seconds of a call, and its floor."""
    workload = Workload(op, shape, shape[3] if op == "conv2d" else 0, part)
    numba.set_num_threads(threads)
    run = contender.kernel(workload, inputs(workload))
    run()
    times, began = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    floor, copied = 0.0, copy_rate(8 * math.prod(shape), threads)
    for cost in workload.costs:
        flops = cost.flops / 4 if op == "conv2d" and shape[3] >= FILTERED else cost.flops
        floor += max(cost.bytes / copied, flops / fma_rate(threads, "float32"))
    return statistics.median(times), floor


def draw(report, path):
    figure = drawing.figure(15, 3.3 * len(KERNELS))
    figure.suptitle(
        "Time per million numbers of x: nbnet and the floor", x=0.01, ha="left", fontsize=14, fontweight="bold", color=drawing.INK
    )
    grid = figure.subplots(len(KERNELS), len(AXES), squeeze=False)
    colours = [drawing.BLUE, drawing.ORANGE, drawing.GREEN, drawing.PURPLE]
    for row, kernel in zip(grid, KERNELS):
        for axes, axis in zip(row, AXES):
            for threads, colour in zip(report["threads"], colours):
                points = [p for p in report["points"] if [*kernel, axis, threads] == [p["op"], p["part"], p["axis"], p["threads"]]]
                x, scale = [p["shape"][PLACE[axis]] for p in points], [1e9 / np.prod(p["shape"]) for p in points]
                label = f"{threads} thread{'s' if threads > 1 else ''}"
                axes.plot(x, [s * p["seconds"] for s, p in zip(scale, points)], "-o", color=colour, markersize=4, label=label)
                axes.plot(x, [s * p["floor"] for s, p in zip(scale, points)], "--", color=colour, linewidth=1.2, label=f"floor, {label}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(x, [f"{value:,}" for value in x])
            axes.set_yscale("log")
            drawing.plain_log(axes.yaxis)
            drawing.dress(axes, " ".join(filter(None, kernel)), axis, "ms")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, fontsize=11)
    drawing.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth"))
    parser.add_argument("--draw", action="store_true", help="only draw the chart again, from the growth.json in that folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "growth.json"
    if options.draw:
        return draw(json.loads(path.read_text(encoding="utf-8")), options.out / "growth.png")
    counts = sorted({1, numba.get_num_threads()})
    contender, points = ours.Contender(max(counts)), []
    for op, part in KERNELS:
        for axis, shapes in AXES.items():
            for shape in shapes:
                for threads in counts:
                    seconds, floor = measure(contender, op, part, shape, threads)
                    points.append(
                        {"op": op, "part": part, "axis": axis, "shape": shape, "threads": threads, "seconds": seconds, "floor": floor}
                    )
                print(
                    op,
                    part,
                    shape,
                    *(f"{1e3 * p['seconds']:.3f} ms, floor {1e3 * p['floor']:.3f}" for p in points[-len(counts) :]),
                    flush=True,
                )
    report = {"threads": counts, "points": points}
    path.write_text(json.dumps(report, indent=0), encoding="utf-8")
    return draw(report, options.out / "growth.png")


if __name__ == "__main__":
    main()
